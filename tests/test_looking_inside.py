"""`docs/looking_inside.md`: its Python runs in order as it stands, with a tiny model."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny

import keras_vit

pytestmark = pytest.mark.one_backend

TEXT = (Path(__file__).parent.parent / "docs" / "looking_inside.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_every_block_runs_after_those_before_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras_vit, "ViTB16", lambda **fields: tiny(num_layers=3, **fields))
    names = {"pixels": np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3))}
    for block in BLOCKS:
        try:
            exec(compile(block, "looking_inside.md", "exec"), names)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\nin the block\n{block}")
    assert names["maps"].shape == (3, 6, 4, 17, 17)
    assert names["by_place"].shape == (6, 4, 4, 4)
    assert names["distance"].shape == (3, 4)
