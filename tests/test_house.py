"""Habits of the repository, read from its sources: imports between rooms, the first words
of docstrings, references to files outside."""

import ast
import graphlib
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


# Imports. A room is a folder of the package or a module beside the folders; it may import
# the rooms of the rows above its own, and those of the first row each other.
ROWS = (
    "_before_keras _version arguments channels deprecated extras intervals log output_paths"
    " resize startup_messages tables types",
    "keras_internals",
    "weight_paths",
    "distribution download",
    "layers",
    "models",
    "cost naflex presets weights",
    "zoo",
    "conversion data exporting",
    "analysis evaluation pretraining report training",
    "planning runs",
    "explorer",
    "cli",
)
LEVELS = {room: level for level, row in enumerate(ROWS) for room in row.split()}
# Imports that go up or sideways, "importer -> imported": this may only get shorter.
EXCEPTIONS = set()
# Circles of modules within a room: this may only get shorter.
CIRCLES = set()


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in _sources(PACKAGE)}


def _imported(module):
    """The modules of the package that a module imports, also within functions; imports for
    types alone do not count."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name not in MODULES:  # a function or class
                name = name.rpartition(".")[0]
            if name in MODULES and name != module:
                yield name


def _room(module):
    return module.partition(".")[2].partition(".")[0]


IMPORTS = {module: set(_imported(module)) for module in MODULES}


def test_rooms_import_those_below_them():
    up = set()
    for module, imported in IMPORTS.items():
        room = _room(module)
        if room in ("", "__main__"):  # the public names, and the command
            continue
        assert room in LEVELS, f"{module}: the room is in no row of the table"
        for other in map(_room, imported):
            # The public names come before the commands.
            level = LEVELS.get(other, len(ROWS)) if other else LEVELS["cli"] - 1
            if other != room and not (level < LEVELS[room] or level == LEVELS[room] == 0):
                up.add(f"{room} -> {other or 'keras_vit'}")
    assert up == EXCEPTIONS


def test_modules_import_in_no_circle():
    found = set()
    for room in {_room(module) for module in MODULES}:
        graph = {m: IMPORTS[m] - {"keras_vit"} for m in MODULES if _room(m) == room}
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            found.add(room)
            print(f"{room}: {' <- '.join(error.args[1])}")
    assert found == CIRCLES


# References.


def test_references_to_files_are_to_files_of_the_repository():
    """Links of Markdown, and paths such as `tests/test_house.py` in text and sources."""
    outside = re.compile(r"(?<!\w)shared[/]|/work[/]|/home[/]")
    ours = "benchmarks|docs|examples|keras_vit|tests|weights_tools"
    path = re.compile(rf"(?<![\w/.])(?:{ours})/[\w./-]*\w\.(?:py|md|png|npz|json)\b")
    missing = []
    for file in [*_sources(*FOLDERS), *ROOT.glob("*.md"), *ROOT.glob("*/*.md")]:
        text = file.read_text("utf-8")
        missing += [f"{file.relative_to(ROOT)}: {one}" for one in outside.findall(text)]
        named = [ROOT / name for name in path.findall(text)]
        if file.suffix == ".md":
            links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
            named += [file.parent / link for link in links]
        for one in named:
            if not (one.exists() and one.resolve().is_relative_to(ROOT)):
                missing.append(f"{file.relative_to(ROOT)}: {one}")
    assert not missing, "\n".join(missing)


# Types.


def _untyped(function, is_method):
    """Names of the arguments of a function that have no type, and "return"."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args][is_method:] + arguments.kwonlyargs
    named += [one for one in (arguments.vararg, arguments.kwarg) if one]
    names = [one.arg for one in named if one.annotation is None]
    if function.returns is None and function.name != "__init__":
        names.append("return")
    return names


def test_public_functions_have_types():
    """pyright (`make lint`) also looks into what the types are made of."""
    missing = []
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text("utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for scope in (tree, *(c for c in classes if not c.name.startswith("_"))):
            for node in scope.body:
                is_public = not getattr(node, "name", "_").startswith("_")
                if isinstance(node, ast.FunctionDef) and is_public:
                    is_static = any(
                        ast.unparse(d) == "staticmethod" for d in node.decorator_list
                    )
                    if names := _untyped(node, scope is not tree and not is_static):
                        missing.append(f"{module}.{node.name}: {', '.join(names)}")
    assert not missing, "\n".join(missing)
