"""Inspection of a checkpoint: its contents and its model, from names and shapes alone."""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from keras_vit.layers.trainability import TRAINABLE_PARTS
from keras_vit.models.quantized import QUANTIZATION
from keras_vit.models.sizes import SIZES, image_size_of, size_name
from keras_vit.tables import shape_text, table
from keras_vit.weights.architecture import (
    EFFICIENTNET_STEM,
    architecture_of,
    bit_architecture_of,
    efficientnet_architecture_of,
    grid_of_positions,
)
from keras_vit.weights.checkpoint import Checkpoint, split_subtree
from keras_vit.weights.files.opening import open_tensors
from keras_vit.weights.files.tensor_file import TensorFile
from keras_vit.weights.keras_files import CLASSES, KERAS, is_keras_hub
from keras_vit.weights.keras_tensors import KerasFile
from keras_vit.weights.report import merge_blocks, shorten_names


@dataclass(frozen=True)
class Inspection:
    """Contents of a file and the model that it would become; prints as a table.

    Attributes:
        path: path of the file.
        kind: kind of file.
        size_bytes: size of all files of the checkpoint.
        shapes: name of a tensor → its shape.
        dtypes: name of a tensor → name of its dtype.
        layout: name of the layout; `None` if it is unknown.
        key: key or prefix of the model in the file; `""` if there is none.
        targets: name of a tensor → paths of the variables that it becomes.
        dropped: name of a tensor that is not needed → the reason.
        unused: names of the tensors that no variable takes; they make loading an error.
        architecture: arguments of the model and `channels`; `None` if unknown.
        origins: argument of the model → source of its value.
        grid: (rows, columns) of the position embedding; `None` without one.
        problem: the reason if no model can be built from the file, else `None`.
    """

    path: str
    kind: str
    size_bytes: int
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    layout: str | None = None
    key: str = ""
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    architecture: Mapping | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    grid: tuple[int, int] | None = None
    problem: str | None = None

    @property
    def num_parameters(self) -> int:
        """Number of parameters in the tensors of the model, or in all if it is unknown."""
        names = self.targets if self.layout else self.shapes
        return sum(math.prod(self.shapes[name]) for name in names)

    def __str__(self):
        return table(self._facts(), left=(0, 1))

    def names(self) -> str:
        """Table of the tensors: name, shape, dtype, and the variable that it becomes."""
        rows = [
            (name, str(shape), self.dtypes[name], self._use(name))
            for name, shape in self.shapes.items()
        ]
        return table([("tensor", "shape", "dtype", "becomes"), *rows], left=(0, 1, 2, 3))

    def _use(self, name):
        if name in self.targets:
            return ", ".join(self.targets[name])
        if name in self.dropped:
            return f"(dropped: {self.dropped[name]})"
        return "(unused)" if self.layout else ""

    def _facts(self):
        dtypes = ", ".join(dict.fromkeys(self.dtypes.values()))
        facts = [
            ("file", self.path),
            ("kind", self.kind),
            ("size", f"{self.size_bytes / 2**20:,.1f} MiB ({self.size_bytes:,} bytes)"),
            ("tensors", f"{len(self.shapes):,} of {dtypes or 'nothing'}"),
            ("parameters", f"{self.num_parameters:,}"),
            ("layout", self.layout or "unknown"),
        ]
        if self.key:
            facts.append(("key", self.key))
        if self.grid:
            facts.append(("position grid", shape_text(self.grid)))
        if self.architecture:
            facts.append(
                ("architecture", size_name(self.architecture) or "no size of a paper")
            )
            facts += _arguments(self.architecture, self.origins)
        for reason in dict.fromkeys(self.dropped.values()):
            names = [name for name, why in self.dropped.items() if why == reason]
            facts.append(("dropped", f"{shorten_names(names)}: {reason}"))
        if self.unused:
            facts.append(("unused", merge_blocks(self.unused)))
        if self.problem:
            facts.append(("cannot be built", " ".join(self.problem.split("\n"))))
        return facts


def inspect(
    path: str | os.PathLike,
    *,
    overrides: Mapping = {},
    preset: tuple[str, Mapping] | None = None,
    model: Mapping = {},
    position_grid: tuple[int, int] | None = None,
    key: str | None = None,
    plain_vit: bool = False,
) -> Inspection:
    """Inspects a local file or folder without reading a tensor.

    A state dict of torch is the exception: torch reads all of it.

    Args:
        path: path of anything that `from_pretrained` or `load_weights` takes, or of a
            foreign file with one of their endings.
        overrides: arguments of the model that the caller gives.
        preset: (name, arguments) of the preset of the file.
        model: arguments to use if the file lacks them.
        position_grid: (rows, columns) of the position embedding in the file.
        key: the state dict or model to read from the file; see `from_pretrained`.
        plain_vit: bool, whether to read the file as a plain ViT; see `from_pretrained`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or of an unknown kind.
    """
    path = os.fspath(path)
    if path.endswith(".keras") or (path.endswith(".weights.h5") and not is_keras_hub(path)):
        return _inspect_keras(KerasFile(path))
    with open_tensors(split_subtree(path)[0]) as file:
        facts = _file_facts(file)
        try:
            checkpoint = Checkpoint(
                path,
                overrides=overrides,
                preset=preset,
                model=model,
                position_grid=position_grid,
                plain_vit=plain_vit,
                key=key,
                file=file,
            )
        except ValueError as error:
            return Inspection(**facts, problem=str(error))
        facts |= {
            "layout": checkpoint.layout.name,
            "key": checkpoint.vit.key,
            "dropped": checkpoint.dropped,
            "unused": checkpoint.unused,
            "targets": checkpoint.tensors.targets,
        }
        try:
            architecture = checkpoint.architecture()
        except ValueError as error:
            return Inspection(**facts, problem=str(error))
        facts["targets"] = _existing(checkpoint.tensors.targets, checkpoint.shapes)
        grid = grid_of_positions(checkpoint.shapes)
        facts |= {"architecture": architecture, "origins": checkpoint.origins}
        return Inspection(**facts, grid=grid)


def _arguments(architecture, origins):
    """Rows of the arguments, the most important first, with the source of each value."""
    size_fields = (*next(iter(SIZES.values())), "num_units", "num_blocks", "width_factor")
    first = ("image_size", "patch_size", *size_fields, "channels", "classes")
    names = [*(name for name in first if name in architecture), *architecture]
    shown = {
        name: _text(architecture[name])
        for name in dict.fromkeys(names)
        if architecture[name] is not None and name not in _NOT_SHOWN
    }
    return [
        (f"  {name}", f"{text}, from {origins[name]}" if name in origins else text)
        for name, text in shown.items()
    ]


# Arguments of every Keras model. The dtypes of the tensors show quantized layers.
_NOT_SHOWN = (
    *("dtype", "name", "trainable", "input_shape", "data_format"),
    *(QUANTIZATION, TRAINABLE_PARTS),
)


def _text(value):
    return str(tuple(value) if isinstance(value, list) else value)


def _file_facts(file: TensorFile) -> dict:
    return {
        "path": file.path,
        "kind": file.kind,
        "size_bytes": sum(os.path.getsize(path) for path in file.paths),
        "shapes": file.shapes,
        "dtypes": file.dtypes,
    }


def _existing(targets: Mapping[str, tuple[str, ...]], variables: Collection[str]) -> dict:
    """Targets without the empty parts of a tensor, such as an empty prefix."""
    return {
        name: tuple(path for path in paths if path in variables)
        for name, paths in targets.items()
    }


def _inspect_keras(file: KerasFile) -> Inspection:
    facts = _file_facts(file)
    kind = file.saved.get("class_name", "VisionTransformer")
    if kind not in CLASSES:
        problem = f"The file holds a model of the class {kind}, not {' or '.join(CLASSES)}."
        return Inspection(**facts, problem=problem)
    facts["layout"] = KERAS.name
    facts["targets"] = {name: (path,) for name, path in file.targets.items()}
    facts["dropped"] = dict.fromkeys(file.optimizer, "it belongs to the optimizer")
    facts["unused"] = tuple(set(file.shapes) - set(file.targets) - set(file.optimizer))
    shapes = {path: file.shapes[name] for name, path in file.targets.items()}
    facts["grid"] = grid_of_positions(shapes)
    if file.saved:
        return Inspection(**facts, architecture=file.saved.get("config"))
    return Inspection(**facts, **_guess(shapes, facts["grid"]))


def _guess(shapes, grid) -> dict:
    """Architecture of a `.weights.h5` file, as far as its shapes determine it."""

    def shape(path, ndim):
        if len(shapes.get(path, ())) != ndim:
            raise ValueError(
                f"The file holds no weights of a known model: {path!r} is missing."
            )
        return shapes[path]

    of_shapes = architecture_of
    if "root/conv/kernel" in shapes:
        of_shapes = bit_architecture_of
    elif EFFICIENTNET_STEM in shapes:
        of_shapes = efficientnet_architecture_of
    try:
        architecture = of_shapes(shapes, shape)
    except ValueError as error:
        return {"layout": None, "problem": str(error)}
    if grid:
        architecture["image_size"] = image_size_of(
            grid, architecture["patch_size"], architecture["stem"]
        )
    problem = (
        "The file lacks the pooling and the activations. Build the model and use "
        "`keras_vit.load_weights`, or save it as .keras."
    )
    return {"architecture": architecture, "problem": problem}
