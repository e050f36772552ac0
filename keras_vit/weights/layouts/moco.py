"""MoCo v3's encoders: timm's VisionTransformer with fixed positions, and MLPs behind it."""

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np

# Names of its two networks.
_ENCODERS = ("base_encoder", "momentum_encoder")
PROJECTION_REASON = "it belongs to MoCo v3's projection head, which only pre-training uses"

# Its ViT-S, with 12 heads where all others have 6.
_WIDTH, _HEADS = 384, 12
_TOLERANCE = 5e-3  # above the rounding of bfloat16


def is_projection(key: str, name: str, names: Collection[str]) -> bool:
    """True if a tensor belongs to the MLP that MoCo v3 puts behind an encoder.

    A classifier's MLP has no batch norm, and is none.

    Args:
        key: key of the ViT in the file.
        name: name of the tensor, with the key.
        names: the names of the file.
    """
    if key.split(".")[-1] not in _ENCODERS:
        return False
    parts = name.removeprefix(f"{key}.").split(".")
    has_norm = f"{key}.head.1.running_mean" in names
    return has_norm and parts[0] == "head" and len(parts) == 3 and parts[1].isdigit()


def heads_of(
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Callable[[], np.ndarray]],
) -> int | None:
    """The number of heads of MoCo v3's ViT-S, if a file has its size and positions.

    No other size has a number of its own.

    Args:
        shapes: canonical name → shape.
        tensors: canonical name → function that reads its tensor.
    """
    shape = shapes.get("pos_embed", ())
    if len(shape) != 3 or shape[0] != 1 or shape[2] != _WIDTH:
        return None
    side = math.isqrt(max(shape[1] - 1, 0))
    if shape[1] != side**2 + 1:
        return None
    difference = tensors["pos_embed"]()[0].astype("float32") - _positions(side, _WIDTH)
    return _HEADS if np.abs(difference).max() < _TOLERANCE else None


def _positions(side, width):
    """MoCo v3's positions (1 + side², width): sines of the row, then of the column.

    The class token has zeros.
    """
    quarter = width // 4
    frequencies = 10_000.0 ** (-np.arange(quarter) / quarter)
    angles = np.arange(side)[:, None] * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    grid = np.concatenate([np.repeat(waves, side, 0), np.tile(waves, (side, 1))], axis=1)
    return np.concatenate([np.zeros((1, width)), grid])
