"""The layout of Google's ViT checkpoints (`gs://vit_models/**.npz`), as a table."""

import math
import re
from typing import NamedTuple

import numpy as np

from keras_vit.weights.files import NpzFile


class Row(NamedTuple):
    """Source tensors → our variable, by a named array move."""

    sources: tuple[str, ...]
    target: str
    move: str = "same"


MOVES = {
    "same": lambda array: array,
    "drop batch axis": lambda array: array[0],
    "stack as first axis": lambda *arrays: np.stack(arrays, axis=0),
    "stack as second axis": lambda *arrays: np.stack(arrays, axis=1),
}

_BLOCK = "Transformer/encoderblock_{i}"
_ATTENTION = f"{_BLOCK}/MultiHeadDotProductAttention_1"
_QKV = ("query", "key", "value")

# `{i}` is the number of the block.
ROWS = (
    Row(("embedding/kernel",), "patch_embedding/kernel"),
    Row(("embedding/bias",), "patch_embedding/bias"),
    Row(("cls",), "class_token/tokens", "drop batch axis"),
    Row((f"{_BLOCK}/LayerNorm_0/scale",), "block_{i}/attention_norm/gamma"),
    Row((f"{_BLOCK}/LayerNorm_0/bias",), "block_{i}/attention_norm/beta"),
    Row(
        tuple(f"{_ATTENTION}/{part}/kernel" for part in _QKV),
        "block_{i}/attention/qkv/kernel",
        "stack as second axis",
    ),
    Row(
        tuple(f"{_ATTENTION}/{part}/bias" for part in _QKV),
        "block_{i}/attention/qkv/bias",
        "stack as first axis",
    ),
    Row((f"{_ATTENTION}/out/kernel",), "block_{i}/attention/projection/kernel"),
    Row((f"{_ATTENTION}/out/bias",), "block_{i}/attention/projection/bias"),
    Row((f"{_BLOCK}/LayerNorm_2/scale",), "block_{i}/mlp_norm/gamma"),
    Row((f"{_BLOCK}/LayerNorm_2/bias",), "block_{i}/mlp_norm/beta"),
    Row((f"{_BLOCK}/MlpBlock_3/Dense_0/kernel",), "block_{i}/mlp/dense_1/kernel"),
    Row((f"{_BLOCK}/MlpBlock_3/Dense_0/bias",), "block_{i}/mlp/dense_1/bias"),
    Row((f"{_BLOCK}/MlpBlock_3/Dense_1/kernel",), "block_{i}/mlp/dense_2/kernel"),
    Row((f"{_BLOCK}/MlpBlock_3/Dense_1/bias",), "block_{i}/mlp/dense_2/bias"),
    Row(("Transformer/encoder_norm/scale",), "encoder_norm/gamma"),
    Row(("Transformer/encoder_norm/bias",), "encoder_norm/beta"),
    Row(("pre_logits/kernel",), "pre_logits/kernel"),
    Row(("pre_logits/bias",), "pre_logits/bias"),
    Row(("head/kernel",), "head/kernel"),
    Row(("head/bias",), "head/bias"),
)

# Names of the submodules in newer files → in the published ones.
NEWER_NAMES = {
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
}

POSITIONS = "Transformer/posembed_input/pos_embedding"


class GoogleCheckpoint:
    """A checkpoint in Google's layout: its architecture, and its tensors as ours.

    Args:
        path: path of the `.npz` file.
        position_grid: (rows, columns) of the position embedding, which the file does
            not tell; `None` takes a square, as in every published file, and where the
            number of patches is no square, the grid of the model to load into.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not a ViT in this layout.
    """

    def __init__(self, path, position_grid: tuple[int, int] | None = None):
        self.file = NpzFile(path)
        self.path = self.file.path
        self.position_grid = position_grid
        self._names: dict[str, str] = {}  # published name → name in the file
        for name in self.file.shapes:
            published = "/".join(NEWER_NAMES.get(part, part) for part in name.split("/"))
            if published in self._names:
                raise self._foreign(
                    f"{name!r} and {self._names[published]!r} are the same tensor"
                )
            self._names[published] = name
        if "conv_root/kernel" in self._names:
            raise self._foreign("it holds a hybrid, a ResNet below a ViT")
        blocks = re.findall(r"Transformer/encoderblock_(\d+)/", "\n".join(self._names))
        self.num_blocks = len(set(blocks))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.__exit__(*exception)

    def architecture(self) -> dict:
        """The arguments of the `VisionTransformer` that the file holds.

        Without `image_size` where neither `position_grid` nor a square number of
        patches tells it.
        """
        attention = _ATTENTION.format(i=0)
        patch_height, patch_width, channels, hidden_dim = self._shape("embedding/kernel", 4)
        class_token = "cls" in self._names
        architecture = {
            "patch_size": (patch_height, patch_width),
            "hidden_dim": hidden_dim,
            "num_layers": self.num_blocks,
            "num_heads": self._shape(f"{attention}/query/kernel", 3)[1],
            "mlp_dim": self._shape(f"{_BLOCK}/MlpBlock_3/Dense_0/kernel".format(i=0), 2)[1],
            "channels": channels,
            "classes": 0,
            "class_token": class_token,
            "pooling": "token" if class_token else "gap",
            "gelu_approximate": True,
            "layer_norm_epsilon": 1e-6,
            "representation_size": None,
        }
        if "head/kernel" in self._names:
            architecture["classes"] = self._shape("head/kernel", 2)[1]
        if "pre_logits/kernel" in self._names:
            architecture["representation_size"] = self._shape("pre_logits/kernel", 2)[1]
        if grid := self.position_grid or self._square():
            architecture["image_size"] = (
                grid[0] * patch_height,
                grid[1] * patch_width,
            )
        return architecture

    def tensors(self, model_grid: tuple[int, int] | None) -> dict[str, np.ndarray]:
        """Every tensor, under the path of the variable it belongs to.

        Tensors that no row of the table names keep their own name.
        """
        tensors, used = {}, set()
        for row in ROWS:
            blocks = range(self.num_blocks) if "{i}" in row.target else (0,)
            for i in blocks:
                sources = [source.format(i=i) for source in row.sources]
                if all(source in self._names for source in sources):
                    arrays = [self._read(source) for source in sources]
                    tensors[row.target.format(i=i)] = MOVES[row.move](*arrays)
                    used.update(sources)
        if POSITIONS in self._names:
            tensors |= self._positions(model_grid)
            used.add(POSITIONS)
        return tensors | {
            self._names[name]: self._read(name) for name in set(self._names) - used
        }

    def _positions(self, model_grid):
        """The one position embedding, parted into that of the token and of the grid."""
        positions = self._read(POSITIONS)[0]
        num_prefix = int("cls" in self._names)
        patches = len(positions) - num_prefix
        grid = self.position_grid or self._square() or model_grid
        if grid is None or math.prod(grid) != patches:
            raise ValueError(
                f"The position embedding of {self.path!r} has {patches} patches, whose "
                "(rows, columns) the file does not tell. Received: "
                f"position_grid={self.position_grid}, and a model with a grid of "
                f"{model_grid}. Give `position_grid=(rows, columns)` with {patches} "
                "patches, or an image size that has them."
            )
        parts = {"position_embedding/grid": positions[num_prefix:].reshape(*grid, -1)}
        if num_prefix:
            parts["position_embedding/prefix"] = positions[:num_prefix]
        return parts

    def _square(self):
        patches = self._shape(POSITIONS, 3)[1] - int("cls" in self._names)
        side = math.isqrt(patches)
        return (side, side) if side * side == patches else None

    def _read(self, published_name):
        return self.file.read(self._names[published_name])

    def _shape(self, published_name, ndim):
        shape = self.file.shapes.get(self._names.get(published_name))
        if shape is None or len(shape) != ndim:
            found = "nothing" if shape is None else f"the shape {shape}"
            raise self._foreign(
                f"{published_name!r} must be there with {ndim} axes, found {found}"
            )
        return shape

    def _foreign(self, reason):
        names = sorted(self.file.shapes)
        some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        return ValueError(
            f"{self.path!r} is not a ViT checkpoint in Google's layout: {reason}. It "
            f"holds {len(names)} tensors: {some}. Expected names such as "
            "'embedding/kernel' and 'Transformer/encoderblock_0/LayerNorm_0/scale'."
        )
