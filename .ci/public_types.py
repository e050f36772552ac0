"""Lists incomplete types of public names: those in the `__all__` of `keras_vit` and of its
public submodules, with the methods and attributes of their classes.

pyright finds it. Two kinds of its findings do not count: Keras has no types, so the bases
of layers, models and callbacks are unknown; and a type that is unknown in one place is
reported again wherever it is used. Exits with 1 if there is any.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = ["--pythonpath", sys.executable, "--verifytypes", "keras_vit"]
# pyright does not follow the import hook of an editable installation.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ROOTS = ("is missing", "missing type annotation", "Type argument", "Type is unknown")


def names_of(package: Path) -> list[str]:
    """The names in the `__all__` of a package."""
    for node in ast.parse((package / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def public_names() -> set[str]:
    """Every public name, with the package that it is imported from."""
    package = ROOT / "keras_vit"
    names = names_of(package)
    found = {f"keras_vit.{name}" for name in names}
    for name in names:
        if (package / name).is_dir():
            found |= {f"keras_vit.{name}.{one}" for one in names_of(package / name)}
    return found


def main() -> int:
    """Runs pyright, and prints a line for each finding and their number."""
    pyright = Path(sys.executable).with_name("pyright")
    run = subprocess.run(
        [pyright, *COMMAND, "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    symbols = json.loads(run.stdout)["typeCompleteness"]["symbols"]
    names, public = {}, public_names()
    for symbol in symbols:
        names[symbol["name"]] = {symbol["name"], *symbol.get("alternateNames", ())}
    lines, known = set(), 0
    for symbol in symbols:
        own = names[symbol["name"]] | names.get(symbol["name"].rpartition(".")[0], set())
        if not own & public:
            continue
        known += symbol["isTypeKnown"]
        for one in symbol["diagnostics"]:
            counts = any(root in one["message"] for root in ROOTS)
            if counts and one["severity"] == "error" and one["file"]:
                file = Path(one["file"]).relative_to(ROOT)
                line = one["range"]["start"]["line"] + 1
                message = " ".join(one["message"].split())
                lines.add(f"{file}:{line}: {symbol['name']}: {message}")
    print("\n".join(sorted(lines)))
    print(f"{len(lines)} of the public types are incomplete, {known} are known.")
    return 1 if lines or not known else 0


if __name__ == "__main__":
    sys.exit(main())
