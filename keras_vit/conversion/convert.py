"""Conversion of checkpoints from any layout to any other, with a check of the result."""

import os
from dataclasses import dataclass
from inspect import signature
from typing import Any

from keras_vit.conversion.inspect import inspect
from keras_vit.conversion.verify import COMPARABLE, compare_models, compare_weights
from keras_vit.models.sizes import grid_size, size_name
from keras_vit.output_paths import check_free, check_kind, partial_path
from keras_vit.tables import table
from keras_vit.weights.architecture import CHECKS
from keras_vit.weights.report import LoadReport, describe_dropped
from keras_vit.weights.save import WRITTEN
from keras_vit.zoo.pretrained import (
    Model,
    from_pretrained,
    load_weights,
    load_with_report,
    save_weights,
)

ENDINGS = {
    ".npz": "google",
    ".safetensors": "timm",
    ".weights.h5": "weights.h5",
    ".keras": "keras",
}
LAYOUTS = (*WRITTEN, "keras", "weights.h5")
# Arguments without which the model of the written file would compute something else.
_NEEDED = (
    *(name for name in CHECKS if name not in ("num_prefix_positions", "position")),
    *("stem", "merged_tokens"),
)


@dataclass(frozen=True)
class Conversion:
    """Record of a conversion: source, model, written file, check; prints as a table.

    Attributes:
        read: the `LoadReport` of the source.
        config: config of the model.
        num_parameters: number of parameters of the model.
        target: path of the written file or folder.
        layout: layout of the target.
        checked: result of reading the target again; `None` if that was skipped.
        not_stored: arguments that the target lacks, to give when it is read.
    """

    read: LoadReport
    config: dict
    num_parameters: int
    target: str
    layout: str
    checked: str | None
    not_stored: tuple[str, ...]

    def __str__(self):
        shown = ("image_size", "patch_size", "hidden_dim", "num_layers", "num_heads")
        shown += (
            "mlp_dim",
            "num_units",
            "num_blocks",
            "width_factor",
            "classes",
            "pooling",
        )
        known = [key for key in shown if key in self.config]
        architecture = ", ".join(f"{key}={self.config[key]!r}" for key in known)
        name = size_name(self.config)
        facts = [
            ("read", f"{self.read.source} (layout: {self.read.layout})"),
            ("model", f"{name}: {architecture}" if name else architecture),
            ("", f"{self.num_parameters:,} parameters"),
        ]
        for path, (old, new) in self.read.resized.items():
            facts.append(("resized", f"{path} from {tuple(old)} to {tuple(new)}"))
        facts += [("dropped", text) for text in describe_dropped(self.read.dropped)]
        if self.read.fresh:
            facts.append(("new", f"{', '.join(self.read.fresh)}: not from the source"))
        facts.append(("written", f"{self.target} (layout: {self.layout})"))
        facts.append(("checked", self.checked or "no"))
        if self.not_stored:
            given = ", ".join(self.not_stored)
            facts.append(("not stored", f"in the file: to read it, give {given}"))
        return table(facts, left=(0, 1))


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    check: bool = True,
    **overrides: Any,
) -> Conversion:
    """Reads a checkpoint of any layout and writes it in another.

    Args:
        source: anything that `from_pretrained` takes.
        target: path of the file to write, or of the folder for `"huggingface"`.
        layout: one of `LAYOUTS`; `None` chooses it by the ending of `target`: `.npz`
            Google's, `.safetensors` timm's, `.keras` and `.weights.h5` Keras', and Hugging
            Face's folder without an ending.
        overwrite: bool, whether to replace an existing target.
        check: bool, whether the target is read again and compared.
        **overrides: further arguments of `from_pretrained`.

    Raises:
        FileNotFoundError: if there is no source, or no folder for the target.
        ValueError: if the target exists, its layout is unknown, or the source or the
            target fails (see `from_pretrained` and `save_weights`); or if the target was
            written, but read again is another model.
    """
    target = os.fspath(target)
    layout = _checked_layout(target, layout)
    check_kind(target, is_folder=layout == "huggingface")
    check_free(target, overwrite)
    model, report = load_with_report(source, **overrides)
    _write(model, target, layout)
    return Conversion(
        read=report,
        config=model.get_config(),
        num_parameters=model.count_params(),
        target=target,
        layout=layout,
        checked=_check(model, target, layout) if check else None,
        not_stored=_arguments_not_stored(model, target, layout),
    )


def _checked_layout(target, layout) -> str:
    endings = {name: ending for ending, name in ENDINGS.items()}
    if layout is None:
        for ending, name in ENDINGS.items():
            if target.endswith(ending):
                return name
        if os.path.isdir(target) or not os.path.splitext(target)[1]:
            return "huggingface"
        raise ValueError(
            f"The ending of {target!r} belongs to no layout. Expected one of "
            f"{', '.join(ENDINGS)}, none for Hugging Face's folder, or "
            f"`layout`: {', '.join(LAYOUTS)}."
        )
    if layout not in LAYOUTS:
        raise ValueError(
            f"`layout` must be one of {', '.join(LAYOUTS)}. Received: layout={layout!r}"
        )
    if layout in endings and not target.endswith(endings[layout]):
        raise ValueError(
            f"A file in the layout {layout!r} ends in {endings[layout]}. Received: "
            f"{target!r}"
        )
    return layout


def _write(model, target, layout):
    if layout in WRITTEN:
        save_weights(model, target, layout=layout)
        return
    with partial_path(target, f".{layout}") as partial:  # Keras asks for the ending
        (model.save if layout == "keras" else model.save_weights)(partial)


def _check(model, target, layout) -> str:
    """Reads the target again and compares it with the model; returns the result as text."""
    again = _read_again(model, target, layout)
    weights = compare_weights(again, model, tolerance=0)
    if weights.ok:
        return f"read again, it holds the same {len(weights.rows)} weights"
    # A layout may add positions to tokens, or store fixed positions.
    models = [from_pretrained(each, **COMPARABLE) for each in (again, model)]
    results = compare_models(*models)
    if not results.ok:
        raise ValueError(
            f"{target!r} was written, but read again it is another model. This is an "
            f"error of keras_vit; please report it.\n{results}"
        )
    return (
        "read again, it computes the same; the layout stores in another form "
        f"{', '.join(weights.different)}"
    )


def _read_again(model, target, layout) -> Model:
    config = model.get_config()
    if layout == "weights.h5":
        again = type(model).from_config(config)
        load_weights(again, target)
        return again
    given = {name: config[name] for name in (*_needed(config), "dtype")}
    return from_pretrained(target, position_grid=_grid(config), **given)


def _needed(config):
    return [name for name in _NEEDED if name in config]


def _grid(config):
    """(rows, columns) of the position embedding, `None` for a model without patches."""
    if "patch_size" not in config:
        return None
    return grid_size(config["image_size"], config["patch_size"], config["stem"])


def _arguments_not_stored(model, target, layout) -> tuple[str, ...]:
    """Arguments without which the target would be read as another model."""
    config = model.get_config()
    if layout == "keras":
        return ()
    if layout == "weights.h5":
        return ("a model of the same architecture to load it into",)
    stored, missing = inspect(target).architecture, ()
    if stored is None:
        grid = _grid(config)
        stored = inspect(target, position_grid=grid).architecture or {}
        missing = (f"position_grid={grid}",)
    defaults = signature(type(model)).parameters
    needed = _needed(config)
    read_as = {name: stored.get(name, defaults[name].default) for name in needed}
    differing = [name for name in needed if _plain(read_as[name]) != _plain(config[name])]
    return (*missing, *(f"{name}={config[name]!r}" for name in differing))


def _plain(value):
    """A sequence of equal values, such as a square, as one value."""
    several = isinstance(value, list | tuple)
    return value[0] if several and len(set(value)) == 1 else value
