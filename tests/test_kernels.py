"""The seam between backends: `layers.kernels` alone knows which backend there is."""

import ast
import importlib
import re
from pathlib import Path

import keras
import pytest

from keras_vit.layers import kernels

FOLDER = Path(kernels.__file__).parent
BACKENDS = ("jax", "tensorflow", "torch")


def arguments(name):
    """Names of the arguments of each public function of a module of kernels."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {
        one.name: [each.arg for each in (*one.args.args, *one.args.kwonlyargs)]
        for one in functions
        if not one.name.startswith("_")
    }


def test_the_backend_s_own_kernels_are_taken():
    """A kernel that its module has and `__init__` forgets would never run."""
    backend = keras.backend.backend()
    own = arguments(backend) if backend in BACKENDS else {}
    for name in kernels.__all__:
        module = backend if name in own else "common"
        expected = importlib.import_module(f"keras_vit.layers.kernels.{module}")
        assert getattr(kernels, name) is getattr(expected, name)


@pytest.mark.one_backend
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_the_arguments_of_common(backend):
    common, own = arguments("common"), arguments(backend)
    shared = own.keys() & set(kernels.__all__)
    assert shared
    for name in shared:
        assert own[name] == common[name], name


@pytest.mark.one_backend
def test_layers_do_not_ask_for_the_backend():
    asks = re.compile(r"backend\.backend\(\)|import (jax|tensorflow|torch)\b")
    for path in FOLDER.parent.glob("*.py"):
        assert not asks.search(path.read_text("utf-8")), path.name
