"""A checkpoint: a file of tensors, read through the table of its layout."""

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np

from keras_vit.layers.mlp import GATED
from keras_vit.log import log
from keras_vit.models.sizes import grid_size, image_size_of
from keras_vit.weights.architecture import (
    KERNEL,
    METADATA,
    RESNET,
    STEM,
    architecture_of,
    bit_architecture_of,
    num_units,
)
from keras_vit.weights.files.opening import open_tensors
from keras_vit.weights.files.tensor_file import TensorFile, parse_json
from keras_vit.weights.layouts.google import BIT, GOOGLE
from keras_vit.weights.layouts.layout import POSITIONS, Layout, TensorRow, numbers_in
from keras_vit.weights.layouts.moves import MOVES, Dims
from keras_vit.weights.notes import notes_of
from keras_vit.weights.packaging import ALL_LAYOUTS, Package, find_package
from keras_vit.weights.resolve import (
    GIVEN,
    MODEL,
    PUBLISHED,
    SHAPES,
    Sources,
    difference,
    named_difference,
    refused,
    stated_depth,
    told_by_file,
    usual_heads,
)

MAX_BLOCKS = 999
_SHOWN = 5  # names in a warning
_INTEGERS = ("int", "uint", "bool", "I", "U", "BOOL")


class Step(NamedTuple):
    """A row of a table at work: tensors of the file → ours.

    `index` is the number of the block where its tensors lie stacked along depth.
    """

    row: TensorRow
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    index: int | None


class Checkpoint:
    """A file's tensors under our names, and what they tell of the architecture.

    Args:
        path: path of a file, or of a folder with `model.safetensors`; a `config.json`
            beside it is read. `….npz:img` takes the sub-tree `img` of the file.
        known: arguments of `VisionTransformer` that the caller gives, which count more
            than what the file tells or its family has in common.
        preset: (name, arguments) of the preset whose file it is; they count next.
        model: the same of the model to be loaded, asked where the file is silent.
        position_grid: (rows, columns) of the position embedding in the file.
        key: the key or prefix under which the ViT is, where a file holds several. `None`
            finds it.
        plain_vit: bool, whether the caller says that the file is a plain ViT, whatever
            names say.
        file: what is at the path, where it is open already.

    Attributes:
        shapes: our name of a tensor → its shape. Where the file does not tell the number
            of heads or the grid of its positions, the first look at it is an error.
        unused: names of the tensors that no row of the table takes.
        dropped: name of a tensor that is not needed → the reason.
        origins: argument of the model → who says its value, after `architecture`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, in no known layout or contradicts itself.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        known: Mapping = {},
        preset: tuple[str, Mapping] | None = None,
        model: Mapping = {},
        position_grid: tuple[int, int] | None = None,
        key: str | None = None,
        plain_vit: bool = False,
        file: TensorFile | None = None,
    ):
        self.source = os.fspath(path)
        path, subtree = split_subtree(self.source)
        self.file = file or open_tensors(path)
        self.package = _package(self.file, subtree, key)
        self.layout = self.package.layout
        self.dropped = {**self.file.beside, **self.package.dropped}
        self._names = self._canonical_names()  # canonical → in the file
        self._shapes = {name: self.file.shapes[n] for name, n in self._names.items()}
        self._steps, self.unused = self._plan()
        given = [(GIVEN, known), *([preset] if preset else [])]
        self._sources = Sources([*given, *self._told()])
        self._known, self._model = self._sources.values, model
        self._position_grid = position_grid
        if position_grid is not None:
            self._known.pop("image_size", None)
        # A row of ours and a file of ours are known to be what their tensors look like.
        self._is_plain = plain_vit or bool(preset) or METADATA in self.file.metadata
        self.origins: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.__exit__(*exception)

    # What the file is.

    def _canonical_names(self):
        names = {}
        for name, raw in self.package.names.items():
            canonical = self.layout.canonical(name)
            if reason := self._reason_to_drop(canonical, raw):
                self.dropped[raw] = reason
            elif canonical in names:
                raise self._foreign(f"{raw!r} and {names[canonical]!r} are the same tensor")
            else:
                names[canonical] = raw
        return names

    def _reason_to_drop(self, canonical, name) -> str | None:
        """Why a tensor is not needed, or None where it is."""
        if reason := self.layout.reason_to_drop(canonical):
            return reason
        is_counter = self.file.dtypes[name].startswith(_INTEGERS)
        if is_counter and not self.layout.knows(canonical):
            return "it counts, and is no weight"
        return None

    @cached_property
    def _config(self) -> dict | None:
        return None if self.layout in (GOOGLE, BIT) else _config_beside(self.file.path)

    def _told(self) -> list[tuple[str, dict]]:
        """(who, arguments) that our own metadata, a config or a name tells."""
        try:
            metadata = parse_json(self.file.metadata.get(METADATA, "{}"))
            path, width = self.file.path, self._width()
            return told_by_file(self.layout, metadata, self._config, path, width)
        except (TypeError, AttributeError, ValueError, LookupError) as error:
            raise self._foreign(f"in its metadata or config.json, {error}") from error

    def notes(self, classes: int) -> dict:
        """Notes on images and classes in the file and the JSON beside it.

        Args:
            classes: int, outputs of the head that the file holds.

        Raises:
            ValueError: if that is damaged.
        """
        try:
            return notes_of(self.file.metadata, self._config, classes)
        except (TypeError, AttributeError, ValueError, LookupError) as error:
            raise self._foreign(f"in its metadata or config.json, {error}") from error

    def check_look_alike(self) -> None:
        """Raises a ValueError if the file may be another model than its tensors look like.

        Rotary positions, norms elsewhere and other poolings leave no tensor behind: names
        of architectures that are not known are refused, and files without positions.
        """
        if self._is_plain or self.layout in (GOOGLE, BIT):
            return
        facts = (self._config, self.file.path, self._names, self._shapes)
        if reason := difference(self.layout, *facts):
            raise refused(self.source, reason)
        positions = any(step.targets == POSITIONS for step in self._steps)
        told = self._known.get("position") or self._model.get("position")
        if self.layout.model == "vit" and not (positions or told):
            raise refused(
                self.source,
                "it has no position embedding, so its positions may be rotary ones. If it "
                "has none at all, give `position='none'`",
            )

    # Which tensor becomes which.

    def _plan(self):
        steps, used = [], set()
        for row in self.layout.rows:
            for numbers, stacked in self._numbers(row):
                names = [
                    (name.replace("_{i}", "") if stacked else name).format(**numbers)
                    for name in row.sources
                ]
                ours = self.layout.ours(numbers)
                if not all(name in self._names for name in names) or -1 in ours.values():
                    continue
                steps.append(
                    Step(
                        row,
                        tuple(self._names[name] for name in names),
                        tuple(target.format(**ours) for target in row.targets),
                        numbers["i"] if stacked else None,
                    )
                )
                used.update(names)
        return steps, tuple(sorted(self._names[n] for n in set(self._names) - used))

    def _numbers(self, row):
        """(numbers in its names, whether stacked along depth) for each use of a row."""
        template = row.sources[0]
        stacked = template.replace("_{i}", "")
        if "_{i}" in template and stacked in self._names:
            depth = self._shapes[stacked][0] if self._shapes[stacked] else 0
            if depth > MAX_BLOCKS:
                raise self._foreign(f"{stacked!r} is of {depth:,} blocks")
            return [({"i": i}, True) for i in range(depth)]
        return [(numbers, False) for numbers in numbers_in(template, self._names)]

    @cached_property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """Name of a tensor of the file → the variables of ours that it becomes."""
        targets = {}
        for step in self._steps:
            for name in step.sources:
                targets[name] = (*targets.get(name, ()), *step.targets)
        return targets

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for step in self._steps:
            # Of a dtype without bytes: moves then shape arrays that take no memory.
            arrays = [np.empty(self.file.shapes[n], dtype=[]) for n in step.sources]
            for target, array in zip(step.targets, self._move(step, arrays), strict=True):
                if target in shapes:
                    raise self._foreign(f"{', '.join(step.sources)} is there twice")
                if array.size or target not in POSITIONS:
                    shapes[target] = array.shape
        return shapes

    def _move(self, step, arrays):
        dims = self._dims  # an error of its own
        try:
            if step.index is not None:
                arrays = [array[step.index] for array in arrays]
            return MOVES[step.row.move].forward(dims, *arrays)
        except (ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(f"{n!r} {self.file.shapes[n]}" for n in step.sources)
            raise self._foreign(
                f"{shapes} cannot become {', '.join(step.targets)}: {error}"
            ) from error

    # What the file does not say by names alone.

    @cached_property
    def _dims(self):
        if self.layout.model == "bit":
            return Dims(0)
        known, model = self._known, self._model
        return Dims(
            self._heads[0], *self._find_positions(known, model, self._position_grid)
        )

    @cached_property
    def _heads(self) -> tuple[int, str]:
        """The number of attention heads and who says so."""
        if self.layout.kernels_of_keras:
            return 0, SHAPES  # they tell, and no move asks
        if number := self._known.get("num_heads"):
            return number, self._sources.origins["num_heads"]
        if number := self._model.get("num_heads"):
            return number, MODEL
        if not self._shape_of(KERNEL):
            raise self._foreign(f"no tensor of it becomes {KERNEL!r}")
        if origin := self._sources.origins.get("num_heads"):
            raise ValueError(
                f"{self.source!r} does not tell the number of attention heads: {origin} is "
                f"not {self._width()} wide. Give `num_heads=…`."
            )
        targets = {target for step in self._steps for target in step.targets}
        num_layers = sum(target.endswith("attention_norm/gamma") for target in targets)
        mlp_dim = (self._shape_of("block_0/mlp/dense_2/kernel") or (0,))[-1]
        others = {"class_token/tokens", "pooling/probe", "fc_norm/gamma"}
        size = (self._width(), num_layers, mlp_dim)
        return usual_heads(self.source, size, others.isdisjoint(targets)), PUBLISHED

    def _shape_of(self, target):
        """Shape in the file of the tensor that becomes a variable, or () without one."""
        step = next((s for s in self._steps if target in s.targets), None)
        return self.file.shapes[step.sources[0]] if step else ()

    def _width(self) -> int:
        """The number of channels of a token, 0 where it is not told or not needed."""
        if self.layout.kernels_of_keras or self.layout.model == "bit":
            return 0
        return (self._shape_of(KERNEL) or (0,))[0]

    def _find_positions(self, known, model, position_grid):
        """How many position rows are the prefix's, and the grid of the others."""
        step = next((s for s in self._steps if s.targets == POSITIONS), None)
        if step is None:
            return 0, None
        shape = self.file.shapes[step.sources[0]]
        if not 2 <= len(shape) <= 3 or (len(shape) == 3 and shape[0] != 1):
            raise self._foreign(f"{step.sources[0]!r} has the shape {shape}")
        tokens = shape[-2]
        prefixes = self.layout.num_prefix(self._shapes)
        if known.get("num_prefix_positions") is not None:
            prefixes = (known["num_prefix_positions"],)
        grids = [
            position_grid or self._grid(known.get("image_size")),
            self._grid(model.get("image_size")),
        ]
        for num_prefix in prefixes:
            patches = tokens - num_prefix
            if grids[0]:
                if math.prod(grids[0]) == patches:
                    return num_prefix, grids[0]
            elif patches > 0 and math.isqrt(patches) ** 2 == patches:
                return num_prefix, (math.isqrt(patches),) * 2
            elif grids[1] and math.prod(grids[1]) == patches:
                return num_prefix, grids[1]
        raise ValueError(
            f"The position embedding of {self.source!r} has {tokens - prefixes[0]} "
            "patches, whose (rows, columns) the file does not tell. Received: "
            f"position_grid={position_grid}, image_size={known.get('image_size')} from "
            f"the checkpoint's config or preset, and a model with a grid of {grids[1]}. "
            "Give `position_grid=(rows, columns)` with as many patches, or an image size "
            "that has them."
        )

    def _grid(self, image_size):
        """(rows, columns) of patches in an image, or None where it is not known."""
        if not image_size or (not isinstance(image_size, int) and None in image_size):
            return None
        if (patch := self._patch_size()) is None:
            return None
        units = num_units((t for step in self._steps for t in step.targets), STEM)
        stem = None if units is None else {"num_units": units}
        return grid_size(image_size, tuple(patch), stem)

    def _patch_size(self):
        shape = self._shape_of(KERNEL)
        if len(shape) != 4 or 0 in shape:
            return None  # told when the tensors are compared
        return shape[:2] if self.layout.kernels_of_keras else shape[2:]

    def _foreign(self, reason):
        return foreign(self.file, reason, self.layout)

    def architecture(self) -> dict:
        """The arguments of the model that the file holds, and `channels`.

        Without `image_size` where the file has no positions that tell it.

        Raises:
            ValueError: if the file only looks like a ViT, or nobody says what published
                models of these shapes answer differently.
        """
        self.check_look_alike()
        if self.layout.model == "bit":
            return self._bit_architecture()
        of_shapes = architecture_of(self.shapes, self._shape)
        usual = of_shapes["class_token"] and not of_shapes["fc_norm"]
        defaults = {"pooling": "token" if usual else "gap", **self.layout.defaults}
        fields = {**defaults, **self._known, **of_shapes}
        self._check_head(of_shapes)
        self._check_depth(of_shapes["num_layers"])
        self._check_settled(fields)
        activation = self._activation(fields)
        of_shapes |= {} if activation == fields.get("mlp") else {"mlp": activation}
        fields["mlp"] = activation
        self.origins = {
            **dict.fromkeys((*defaults, "mlp"), f"the layout {self.layout.name!r}"),
            **self._sources.origins,
            **dict.fromkeys(of_shapes, SHAPES),
            "num_heads": self._heads[1],
        }
        options = {key: fields.pop(key, None) for key in RESNET}
        if stem := fields["stem"]:
            told = {key: value for key, value in options.items() if value is not None}
            fields["stem"] = {**stem, **self.layout.resnet, **told}
        _drop_other_colours(fields)
        fields.pop("position", None)
        if POSITIONS[1] not in self.shapes:
            told = self._known.get("position")
            fields["position"] = told or self.layout.without_positions
        if self._dims.grid:
            fields["image_size"] = image_size_of(
                self._dims.grid, fields["patch_size"], fields["stem"]
            )
            if "image_size" not in self._known or self._position_grid:
                given = self._position_grid is not None
                self.origins["image_size"] = GIVEN if given else SHAPES
        return fields

    def _check_depth(self, num_layers):
        """Refuses a file that has lost blocks of the model that its config describes."""
        key, number = stated_depth(self._config or {})
        if number is None or number == num_layers:
            return
        raise ValueError(
            f"{self.source!r} is not complete, or beside the config.json of another model: "
            f"its tensors are of {num_layers} blocks, and config.json says {key}={number}. "
            "Download it again; if blocks were taken away on purpose, change the config."
        )

    def _check_head(self, fields):
        """Refuses a wanted head that does not read what the model pools."""
        kernel, classes = self.shapes.get("head/kernel", ()), fields["classes"]
        features = fields["representation_size"] or fields["hidden_dim"]
        is_wanted = self._known.get("classes", classes) == classes
        if len(kernel) != 2 or kernel[0] != 2 * features or not is_wanted:
            return  # what else does not fit is told when the tensors are compared
        raise ValueError(
            f"The head of {self.source!r} reads {kernel[0]} numbers, where the model has "
            f"{features} features: transformers' DINOv2 puts the class token and the mean "
            "of the patches side by side, which no head here reads. Give `classes=0` for "
            "the features, or another number of classes for a new head."
        )

    def _check_settled(self, fields):
        """Refuses a file if nobody tells what published models of its shapes differ in."""
        unsettled = {
            name: " or ".join(map(repr, answers))
            for name, answers in self.layout.unsettled(fields).items()
            if name not in self._known
        }
        if unsettled:
            known = ", ".join(f"`{name}` ({text})" for name, text in unsettled.items())
            give = ", ".join(f"`{name}=…`" for name in unsettled)
            raise ValueError(
                f"{self.source!r} does not tell {known}, in which models of these shapes "
                f"differ. Give {give}, or put the model's config.json beside the file."
            )

    def _bit_architecture(self):
        of_shapes = bit_architecture_of(self.shapes, self._shape)
        # Of any size it computes something; 224 pixels is what every BiT began with.
        usual = {"image_size": (224, 224), **self.layout.resnet}
        possible = (*RESNET, "image_size", "image_mean", "image_std")
        known = {key: self._known[key] for key in possible if key in self._known}
        fields = {**usual, **known, **of_shapes}
        _drop_other_colours(fields)
        self.origins = {
            **dict.fromkeys(usual, f"the layout {self.layout.name!r}"),
            **{key: self._sources.origins[key] for key in known},
            **dict.fromkeys(of_shapes, SHAPES),
        }
        return fields

    def _activation(self, fields):
        """The MLP's activation: gated where `dense_1` gives twice what `dense_2` reads."""
        activation = fields.get("mlp", "gelu")
        outputs = self._shape("block_0/mlp/dense_1/kernel", 2)[1]
        if outputs != 2 * fields["mlp_dim"]:
            return activation
        if activation not in GATED:
            activation = self.layout.gate(fields, self.file.shapes)
        if activation is None:
            raise ValueError(
                f"{self.source!r} has MLPs with a gate, and does not tell its activation. "
                "Give `mlp='swiglu'` (SiLU, as the published models that are known here) "
                "or `mlp='geglu'` (GELU)."
            )
        return activation

    def _shape(self, target, ndim):
        shape = self.shapes.get(target, ())
        if len(shape) != ndim:
            found = f"the shape {shape}" if shape else "nothing"
            raise self._foreign(f"{target!r} must be there with {ndim} axes, found {found}")
        return shape

    # The tensors.

    def check(self, targets) -> None:
        """Reads what belongs to the targets, for the errors alone."""
        names = {
            name: None  # a set in order
            for step in self._steps
            if targets & set(step.targets)
            for name in step.sources
        }
        # Reading, checksums and sums all leave Python to other threads meanwhile.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for _ in pool.map(self.file.check, names):
                pass

    def read(self, targets) -> Iterator[tuple[str, np.ndarray]]:
        """Our name and the tensor, for each of the targets."""
        sources, arrays = None, None
        for step in self._steps:
            if not targets & set(step.targets):
                continue
            if step.sources != sources:  # tensors stacked along depth are read once
                sources, arrays = step.sources, [self.file.read(n) for n in step.sources]
            moved = self._move(step, arrays)
            for target, array in zip(step.targets, moved, strict=True):
                if target in targets:
                    yield target, array


def _drop_other_colours(fields):
    """Leaves out what is told of images with other channels than the model's."""
    for name in ("image_mean", "image_std"):
        values = fields.get(name)
        if isinstance(values, tuple) and len(values) != fields["channels"]:
            del fields[name]


def split_subtree(source: str) -> tuple[str, str | None]:
    """`"file.npz:img"` → ("file.npz", "img"), as BigVision writes it."""
    path, found, subtree = source.rpartition(".npz:")
    return (f"{path}.npz", subtree) if found else (source, None)


def _package(file, subtree, key) -> Package:
    """The tensors of the ViT that is meant; says what else there is."""
    try:
        package = find_package(file.shapes, subtree, key)
    except ValueError as error:
        raise ValueError(f"{file.path!r} cannot be loaded: {error}.") from error
    if package is None:
        reason = "its names are of no layout"
        if named := named_difference(_config_beside(file.path) or {}):
            reason = f"{reason}, and {named}"
        if subtree:
            reason = f"it has no ViT in the sub-tree {subtree!r}"
        raise foreign(file, reason)
    file.check_claims(package.names.values())
    if package.others:
        log.warning(
            "%s holds several ViTs. Taken is that under the key %r; `key=…` takes another: "
            "%s.",
            file.path,
            package.key,
            ", ".join(map(repr, package.others)),
        )
    if package.heads and key is None:
        others = len(package.heads) - _SHOWN
        log.warning(
            "%s holds a ViT under the key %r, and beside it %s, which may be its head and "
            "is left out.",
            file.path,
            package.key,
            ", ".join(package.heads[:_SHOWN]) + (f" and {others} more" * (others > 0)),
        )
    return package


def foreign(file: TensorFile, reason: str, layout: Layout | None = None) -> ValueError:
    """The error of a file that is not what it seems."""
    names = sorted(file.shapes)
    some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    some = f"{len(names)} tensors: {some}" if names else "no tensor"
    what = f"in the layout {layout.name!r}" if layout else "in a layout known here"
    kind = "BiT" if layout and layout.model == "bit" else "ViT"
    return ValueError(
        f"{file.path!r} is not a {kind} checkpoint {what}: {reason}. It holds {some}. "
        f"Layouts: {', '.join({known.name: 0 for known in ALL_LAYOUTS})}."
    )


def _config_beside(path) -> dict | None:
    """`config.json` in the file's folder, with what lies beside it under its name."""
    folder = os.path.dirname(path)
    config = _json(os.path.join(folder, "config.json"))
    if config is not None:
        for name in ("task", "preprocessor_config"):  # KerasHub, Hugging Face
            config[name] = _json(os.path.join(folder, f"{name}.json"))
    return config


def _json(path):
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            content = parse_json(file.read())
        if not isinstance(content, dict):
            raise ValueError("it is no dictionary")
    except ValueError as error:
        raise ValueError(f"{path!r} beside the checkpoint is damaged: {error}") from error
    return content
