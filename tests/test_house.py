"""Habits of the repository, read from its sources: imports between rooms, the first words
of docstrings, references to files outside."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_vit"
FOLDERS = (PACKAGE, *(ROOT / name for name in ("benchmarks", "examples", "weights_tools")))
FOLDERS += (ROOT / "tests",)
OPENING = re.compile(
    r"(Of|Those|What|Where|Whether|How|That|Which|One that"
    r"|(At|By|For|From|In|On|To|With) (what|which|whom|whose))\b"
)


def _sources(*folders):
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def _docstrings(path):
    """(line, docstring) of the module, its classes and functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and ast.get_docstring(node):
            yield getattr(node, "lineno", 1), ast.get_docstring(node)


def test_docstrings_begin_with_their_subject():
    """`Number of images`, not `How many images there are`."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in _sources(*FOLDERS)
        for line, text in _docstrings(path)
        if OPENING.match(text)
    ]
    assert not found, "\n".join(found)
