"""A checkpoint: a file of tensors, read through the table of its layout."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from keras_vit.layers.mlp import GATED
from keras_vit.layers.rotary import checked_rope
from keras_vit.models.sizes import grid_size, image_size_of
from keras_vit.resize import grid_of_offsets
from keras_vit.weights import look_alikes
from keras_vit.weights.architecture import (
    FREQUENCIES,
    KERNEL,
    METADATA_KEY,
    RESNET,
    STEM,
    architecture_of,
    bit_architecture_of,
    checked_arguments,
    count_blocks,
    efficientnet_architecture_of,
    num_units,
)
from keras_vit.weights.config_files import read_config
from keras_vit.weights.files.opening import open_tensors
from keras_vit.weights.files.tensor_file import TensorFile, parse_json
from keras_vit.weights.layouts.google import BIT, GOOGLE
from keras_vit.weights.layouts.layout import OFFSETS, POSITIONS, Layout
from keras_vit.weights.layouts.moves import Dims
from keras_vit.weights.notes import notes_of
from keras_vit.weights.resolve import (
    CONFIG,
    METADATA,
    MODEL,
    OVERRIDES,
    POSITION_GRID,
    PUBLISHED,
    SHAPES,
    TENSORS,
    Resolver,
    Undecided,
    published_heads,
)
from keras_vit.weights.tensor_map import TensorMap
from keras_vit.weights.vit_in_file import ViTInFile, find_vit

# Of the networks without attention: function of the shapes → arguments, and the names of
# arguments that other sources tell.
_IMAGES = ("image_size", "image_mean", "image_std")
_NETWORKS = {
    "bit": (bit_architecture_of, (*RESNET, *_IMAGES)),
    "efficientnet": (efficientnet_architecture_of, _IMAGES),
}


class Checkpoint:
    """A file's tensors under our names, and the arguments of the model in it.

    Args:
        path: path of a file, or of a folder with `model.safetensors`. A `config.json`
            beside it is read. `….npz:img` is the sub-tree `img` of the file.
        overrides: arguments of the model that the caller gives.
        preset: (name, arguments of the model) of the preset to which the file belongs.
        model: arguments of the model to be loaded, for the number of heads, the rotary
            positions and the grid of positions where no other source tells them.
        position_grid: (rows, columns) of the position embedding in the file.
        key: the key or prefix of the model's names, where a file holds several models.
            `None` finds it.
        plain_vit: whether to read the file as a plain ViT, whatever its names say.
        file: the open file, where it is open already.

    Attributes:
        source: path as it was given.
        layout: layout of the file.
        tensors: the `TensorMap` of the file.
        unused: names of the tensors that no row of the table takes.
        dropped: name of a tensor that the model does not need → the reason.
        origins: argument of the model → name of the source for its value; filled by
            `architecture`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, in no known layout or contradicts itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overrides: Mapping[str, Any] = {},
        preset: tuple[str, Mapping[str, Any]] | None = None,
        model: Mapping[str, Any] = {},
        position_grid: tuple[int, int] | None = None,
        key: str | None = None,
        plain_vit: bool = False,
        file: TensorFile | None = None,
    ):
        self.source: str = os.fspath(path)
        path, subtree = split_subtree(self.source)
        self.file: TensorFile = file or open_tensors(path)
        self.vit: ViTInFile = self._find(subtree, key)
        self.tensors: TensorMap = TensorMap(self.file, self.vit)
        self.layout: Layout = self.vit.layout
        self.unused: tuple[str, ...] = self.tensors.unused
        self.dropped: dict[str, str] = self.tensors.dropped
        self.origins: dict[str, str] = {}
        self._position_grid = position_grid
        given = {name: value for name, value in overrides.items() if value is not None}
        # Presets and our own files state what tensors do not.
        self._is_stated = bool(preset) or METADATA_KEY in self.file.metadata
        self._is_plain = plain_vit
        self._sources = [(OVERRIDES, given), *([preset] if preset else [])]
        self._sources += [*self._sources_of_file(), *self._heads_of_values()]
        # The last two only tell the number of heads, the positions and their grid.
        last = ((MODEL, model), (PUBLISHED, self._published_heads()))
        self._resolver = Resolver(*self._sources, *last)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.__exit__(*exception)

    def _find(self, subtree, key) -> ViTInFile:
        return find_vit(self.file, subtree, key)

    # What the file and the JSON beside it tell.

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path of our variable → its shape.

        Raises:
            ValueError: if no source tells the number of heads or the grid of positions.
        """
        return self.tensors.variable_shapes(self._dims)

    @cached_property
    def _config(self) -> dict[str, Any] | None:
        return None if self.layout in (GOOGLE, BIT) else read_config(self.file.path)

    @cached_property
    def _readers(self) -> dict[str, Callable[[], np.ndarray]]:
        """Canonical name → function that reads the tensor."""
        names = {self.layout.canonical_name(n): r for n, r in self.vit.names.items()}
        return {n: partial(self.file.read, raw) for n, raw in names.items()}

    def _sources_of_file(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The metadata, `config.json` and the names and classes in it, in order."""
        layout = self.layout
        try:
            metadata = parse_json(self.file.metadata.get(METADATA_KEY, "{}"))
            stated = layout.config_arguments(self._config or {})
            stated = {key: value for key, value in stated.items() if value is not None}
            path, width = self.file.path, self._width()
            sources = [
                (TENSORS, layout.tensor_arguments(self._readers)),
                (METADATA, checked_arguments(metadata)),
                (CONFIG, checked_arguments(stated)),
                *layout.architecture_arguments(self._config, path, width),
            ]
            if self._is_plain:
                for _, arguments in sources:
                    arguments.pop("rope", None)
                    arguments.pop("norm_after", None)
            return sources
        except (TypeError, AttributeError, ValueError, LookupError) as error:
            raise self._damaged_config(error) from error

    def notes(self, classes: int) -> dict[str, Any]:
        """The notes on images and classes in the file and the JSON beside it.

        Args:
            classes: number of outputs of the head in the file.

        Raises:
            ValueError: if they are damaged.
        """
        try:
            return notes_of(self.file.metadata, self._config, classes)
        except (TypeError, AttributeError, ValueError, LookupError) as error:
            raise self._damaged_config(error) from error

    def _damaged_config(self, error):
        return self.tensors.foreign_error(f"in its metadata or config.json, {error}")

    # The number of heads and the grid of positions, without which our shapes are unknown.

    def _heads_of_values(self) -> list[tuple[str, dict[str, Any]]]:
        """The number of heads of the published model with these values, as a source."""
        if self._is_plain or "num_heads" in self._sources[0][1]:
            return []
        heads = self.layout.tensor_heads(self.tensors.shapes, self._readers)
        return [(TENSORS, {"num_heads": heads})] if heads else []

    def _published_heads(self) -> dict[str, Any]:
        """The number of heads of published models, where no source concerns it."""
        if any("num_heads" in a for _, a in self._sources) or not self._width():
            return {}
        variables = self.tensors.variables
        others = {"class_token/tokens", "pooling/probe", "fc_norm/gamma"}
        heads = published_heads(
            self._width(),
            count_blocks(variables),
            (self.tensors.source_shape("block_0/mlp/dense_2/kernel") or (0,))[-1],
            pooled_patches=others.isdisjoint(variables),
        )
        return {"num_heads": heads}

    def _width(self) -> int:
        """The number of channels of a token; 0 where no source needs it."""
        if self.layout.keras_kernels or self.layout.model != "vit":
            return 0
        return (self.tensors.source_shape(KERNEL) or (0,))[0]

    @cached_property
    def _dims(self) -> Dims:
        if self.layout.model != "vit":
            return Dims(0)
        num_heads = 0  # not needed: kernels in Keras' axes tell it
        if not self.layout.keras_kernels:
            if not (self._width() or self._resolver.value("num_heads")):
                raise self.tensors.foreign_error(f"no tensor of it becomes {KERNEL!r}")
            self._resolver.check(self.source)
            num_heads = self._resolver.value("num_heads")
        pooling_num_heads = self._resolver.value("pooling_num_heads")
        return Dims(num_heads, *self._positions[:2], pooling_num_heads)

    @cached_property
    def _positions(self) -> tuple[int, tuple[int, int] | None, str]:
        """(number of positions of the prefix tokens, grid of the others, its source)."""
        rows = self.tensors.rows
        row = next((r for r in rows if r.row.targets in (POSITIONS, OFFSETS)), None)
        if row is None:
            return 0, None, ""
        shape = self.file.shapes[row.sources[0]]
        if len(shape) == 4 and shape[0] == 1:  # NaFlexVit's, of patches alone
            return 0, shape[1:3], SHAPES
        if not 2 <= len(shape) <= 3 or (len(shape) == 3 and shape[0] != 1):
            raise self.tensors.foreign_error(f"{row.sources[0]!r} has the shape {shape}")
        grid, origin = self._stated_grid()
        if row.row.targets == OFFSETS:
            stated = grid and tuple(2 * number - 1 for number in grid), origin
            _, grid, origin = self._grid("offsets", shape[-2], (3,), *stated)
            return 0, grid_of_offsets(grid), origin
        prefixes = self.layout.num_prefix(self.tensors.shapes)
        if (stated := self._resolver.value("num_prefix_positions")) is not None:
            prefixes = (stated,)
        return self._grid("patches", shape[-2], prefixes, grid, origin)

    def _grid(self, kind, number, prefixes, grid, origin):
        """The first number of a prefix with which the others are a grid, that, its source.

        Args:
            kind: what has positions, for the error.
            number: how many there are, those of the prefix included.
            prefixes: the numbers that the prefix may have.
            grid: (rows, columns) that a source states, or None.
            origin: that source.
        """
        for num_prefix in prefixes:
            others = number - num_prefix
            side = math.isqrt(max(others, 0))
            if side and side**2 == others and origin in (None, MODEL):
                return num_prefix, (side, side), SHAPES
            if grid and math.prod(grid) == others:
                return num_prefix, grid, origin
        raise ValueError(
            f"The position embedding of {self.source!r} has {number - prefixes[0]} {kind}, "
            "whose (rows, columns) the file does not tell. Received: "
            f"position_grid={self._position_grid}, image_size="
            f"{self._resolver.value('image_size')} from {origin or 'no source'}. Give "
            "`position_grid=(rows, columns)` of the patches, or the image size."
        )

    def _stated_grid(self) -> tuple[tuple[int, int] | None, str | None]:
        """(rows, columns) of an image's patches that a source states, and the source."""
        if self._position_grid:
            return self._position_grid, POSITION_GRID
        size = self._resolver.value("image_size")
        patch = self.tensors.source_shape(KERNEL)
        if not size or (not isinstance(size, int) and None in size):
            return None, None
        if len(patch) != 4 or 0 in patch:
            return None, None  # an error when the tensors are compared
        patch = patch[:2] if self.layout.keras_kernels else patch[2:]
        units = num_units(self.tensors.variables, STEM)
        stem = None if units is None else {"num_units": units}
        return grid_size(size, patch, stem), self._resolver.origin("image_size")

    # The model.

    def architecture(self) -> dict[str, Any]:
        """The arguments of the model in the file, and `channels`.

        There is no `image_size` where no source tells it.

        Raises:
            ValueError: if the file may be another model than its tensors look like, or
                no source tells an argument in which published models differ.
        """
        self.check_look_alike()
        if self.layout.model != "vit":
            return self._network_architecture()
        shapes = architecture_of(self.shapes, self._shape)
        self._check_depth(shapes["num_layers"])
        if self._has_gates(shapes) and self._resolver.value("mlp") not in GATED:
            shapes["mlp"] = self._gate_activation(shapes)
        fields = self._resolve(
            *self._sources_of_dims(shapes),
            (SHAPES, shapes),
            *self._sources,
            (f"the layout {self.layout.name!r}", self._defaults(shapes)),
        )
        options = {key: fields.pop(key) for key in RESNET if key in fields}
        if fields["stem"]:
            fields["stem"] = {**fields["stem"], **options}
        if POSITIONS[1] in self.shapes:
            del fields["position"]
        return fields

    def _resolve(self, *sources) -> dict[str, Any]:
        """Argument → value; notes the origins."""
        resolver = Resolver(*sources)
        resolver.check(self.source)
        fields = resolver.values()
        for name in ("image_mean", "image_std"):  # of images with other channels
            value = fields.get(name)
            if isinstance(value, tuple) and len(value) != fields["channels"]:
                del fields[name]
        self.origins = {name: resolver.origin(name) for name in fields}
        return fields

    def _sources_of_dims(self, shapes) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if not self.layout.keras_kernels:
            heads = {"num_heads": self._dims.num_heads}
            yield self._resolver.origin("num_heads"), heads
        if grid := self._dims.grid:
            size = image_size_of(grid, shapes["patch_size"], shapes["stem"])
            yield self._positions[2], {"image_size": size}

    def _defaults(self, shapes) -> dict[str, Any]:
        """The defaults of the layout for a model of these shapes."""
        layout = self.layout
        has_token_head = shapes["class_token"] and not shapes["fc_norm"]
        undecided = {
            name: Undecided(f"{' or '.join(map(repr, values))} in models of these shapes")
            for name, values in layout.undecided(shapes).items()
        }
        return {
            "pooling": "token" if has_token_head else "gap",
            "position": layout.without_positions,
            "mlp": "gelu",
            **layout.resnet_defaults,
            **layout.defaults,
            **undecided,
        }

    def _network_architecture(self) -> dict[str, Any]:
        architecture_of_shapes, names = _NETWORKS[self.layout.model]
        # Images may have any size; all BiTs were first trained at 224 pixels.
        defaults = {"image_size": (224, 224), **self.layout.resnet_defaults}
        sources = [
            (origin, {name: value for name, value in a.items() if name in names})
            for origin, a in self._sources
        ]
        return self._resolve(
            (SHAPES, architecture_of_shapes(self.shapes, self._shape)),
            *sources,
            (f"the layout {self.layout.name!r}", defaults),
        )

    def _has_gates(self, shapes) -> bool:
        """True if the first layer of an MLP gives twice the inputs of the second."""
        outputs = self._shape("block_0/mlp/dense_1/kernel", 2)[1]
        return outputs == 2 * shapes["mlp_dim"]

    def _gate_activation(self, shapes) -> str:
        activation = self.layout.gate_activation(shapes, self.file.shapes)
        if activation is None:
            raise ValueError(
                f"{self.source!r} has MLPs with a gate, and does not tell its activation. "
                "Give `mlp='swiglu'` (SiLU, as in the published models known here) or "
                "`mlp='geglu'` (GELU)."
            )
        return activation

    def _shape(self, target, ndim) -> tuple[int, ...]:
        shape = self.shapes.get(target, ())
        if len(shape) != ndim:
            found = f"the shape {shape}" if shape else "nothing"
            raise self.tensors.foreign_error(
                f"{target!r} must be there with {ndim} axes, found {found}"
            )
        return shape

    # Refusals.

    def check_look_alike(self) -> None:
        """Raises a ValueError if the file may be another model than its tensors look like.

        Rotary positions, other places of norms and other poolings leave no tensor behind.
        Files that name an unknown architecture are refused, and files without positions.
        """
        if self._is_plain or self._is_stated or self.layout in (GOOGLE, BIT):
            return
        has_rope = self.rope is not None
        is_told = has_rope or self._resolver.value("norm_after") is not None
        facts = (self._config, self.file.path, self.tensors.names, self.tensors.shapes)
        if reason := look_alikes.reason_to_refuse(self.layout, *facts, is_told=is_told):
            raise look_alikes.refusal(self.source, reason)
        places = (POSITIONS, OFFSETS)
        has_positions = any(row.row.targets in places for row in self.tensors.rows)
        has_none = self._resolver.value("position") or has_rope
        if self.layout.model == "vit" and not (has_positions or has_none):
            raise look_alikes.refusal(
                self.source,
                "it has no position embedding, so its positions may be rotary ones. If it "
                "has none at all, give `position='none'`",
            )

    @property
    def rope(self) -> dict[str, Any] | None:
        """Rotary positions, from tensors of frequencies or another source; or `None`."""
        if FREQUENCIES in self.tensors.variables:
            return checked_rope("mixed")
        return checked_rope(self._resolver.value("rope"))

    @property
    def norm_after(self) -> bool:
        """True if a source says that norms come after attention and MLP."""
        return bool(self._resolver.value("norm_after"))

    def _check_depth(self, num_layers):
        """Refuses a file that has lost blocks of the model that its config describes."""
        self._compare_depth(*look_alikes.stated_depth(self._config or {}), num_layers)

    def _compare_depth(self, key, number, num_layers):
        if number is None or number == num_layers:
            return
        raise ValueError(
            f"{self.source!r} is not complete, or beside the config.json of another model: "
            f"its tensors are of {num_layers} blocks, and config.json says {key}={number}. "
            "Download it again; if blocks were taken away on purpose, change the config."
        )

    # The tensors.

    def check(self, targets: set[str]) -> None:
        """Reads the tensors of some variables only to raise the errors of `read`."""
        self.tensors.check(targets)

    def read(self, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(path of our variable, array) for each of the targets."""
        return self.tensors.read(targets, self._dims)


def split_subtree(source: str) -> tuple[str, str | None]:
    """`"file.npz:img"`, in BigVision's notation → `("file.npz", "img")`."""
    path, found, subtree = source.rpartition(".npz:")
    return (f"{path}.npz", subtree) if found else (source, None)
