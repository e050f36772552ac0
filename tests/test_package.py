"""Imports and exports of the package."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import keras_vit

IMPORT = """
import json, sys, keras
before = set(sys.modules)
import keras_vit
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_adds_nothing_heavy():
    """Neither plots nor data sets nor another backend, beyond what Keras imports."""
    output = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
    ).stdout
    modules = json.loads(output.splitlines()[-1])
    assert "keras_vit.cli" not in modules
    new = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    assert new <= {"keras_vit", "h5py", "numpy"}


def test_every_public_name_exists_and_is_documented():
    for name in keras_vit.__all__:
        thing = getattr(keras_vit, name)
        if name != "__version__":
            assert thing.__doc__, name
    for name in keras_vit.layers.__all__:
        assert getattr(keras_vit.layers, name).__doc__, name


def test_the_package_is_typed():
    folder = os.path.dirname(keras_vit.__file__)
    assert os.path.exists(os.path.join(folder, "py.typed"))


def test_files_that_are_not_python_are_installed():
    """Each is matched by a pattern of `package-data`, such as the report's templates."""
    folder = Path(keras_vit.__file__).parent
    project = tomllib.loads((folder.parent / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["keras_vit"]
    installed = {path for pattern in patterns for path in folder.glob(pattern)}
    found = {p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p for p in found if p.suffix != ".py"} == installed
