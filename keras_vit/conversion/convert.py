"""Checkpoints from any layout to any other, with a look at what was written."""

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
# Arguments that a file must tell for its model to compute the same.
_NEEDED = (
    *(name for name in CHECKS if name not in ("num_prefix_positions", "position")),
    *("stem", "merged_tokens"),
)


@dataclass(frozen=True)
class Conversion:
    """What was read, written and checked; prints as a table.

    Attributes:
        read: the `LoadReport` of the source.
        config: the model's config.
        num_parameters: of the model.
        target: path of what was written.
        layout: its layout.
        checked: what reading it again showed; `None` where that was skipped.
        not_told: what the written file does not tell, to be given when it is read.
    """

    read: LoadReport
    config: dict
    num_parameters: int
    target: str
    layout: str
    checked: str | None
    not_told: tuple[str, ...]

    def __str__(self):
        shown = ("image_size", "patch_size", "hidden_dim", "num_layers", "num_heads")
        shown += ("mlp_dim", "num_units", "width_factor", "classes", "pooling")
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
        if self.not_told:
            facts.append(("not told", f"by the file, so give {', '.join(self.not_told)}"))
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
        layout: one of `LAYOUTS`; `None` takes the one that the ending of `target` says:
            `.npz` Google's, `.safetensors` timm's, `.keras` and `.weights.h5` Keras',
            none Hugging Face's folder.
        overwrite: bool, whether what is at `target` may be replaced.
        check: bool, whether the target is read again and compared.
        **overrides: of `from_pretrained`.

    Raises:
        FileNotFoundError: if there is no source, or no folder for the target.
        ValueError: if something is at `target`, the layout is not told, or the source or
            the target fails; see `from_pretrained` and `save_weights`. Or if the target
            was written, and read again is another model.
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
        not_told=_not_told(model, target, layout),
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
            f"The ending of {target!r} does not tell the layout. Expected one of "
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
    """Reads the target again and says what it holds, if that is the model."""
    again = _read_again(model, target, layout)
    weights = compare_weights(again, model, tolerance=0)
    if weights.ok:
        return f"read again, it holds the same {len(weights.rows)} weights"
    # Tokens may hold their positions, and positions may be written out.
    models = [from_pretrained(each, **COMPARABLE) for each in (again, model)]
    results = compare_models(*models)
    if not results.ok:
        raise ValueError(
            f"{target!r} was written, and read again it is another model. This is an "
            f"error of keras_vit; please report it.\n{results}"
        )
    return (
        "read again, it computes the same; the layout has another form for "
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
    """(rows, columns) of the position embedding, None in a model without any."""
    if "patch_size" not in config:
        return None
    return grid_size(config["image_size"], config["patch_size"], config["stem"])


def _not_told(model, target, layout) -> tuple[str, ...]:
    """Arguments without which the target would be read as another model."""
    config = model.get_config()
    if layout == "keras":
        return ()
    if layout == "weights.h5":
        return ("a model of the same architecture to load it into",)
    told, missing = inspect(target).architecture, ()
    if told is None:
        grid = _grid(config)
        told = inspect(target, position_grid=grid).architecture or {}
        missing = (f"position_grid={grid}",)
    defaults = signature(type(model)).parameters
    needed = _needed(config)
    read_as = {name: told.get(name, defaults[name].default) for name in needed}
    differing = [name for name in needed if _plain(read_as[name]) != _plain(config[name])]
    return (*missing, *(f"{name}={config[name]!r}" for name in differing))


def _plain(value):
    """One number for as many of the same, as of a square or of grey channels."""
    several = isinstance(value, list | tuple)
    return value[0] if several and len(set(value)) == 1 else value
