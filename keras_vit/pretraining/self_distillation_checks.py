"""Checks of the arguments and of the views of `SelfDistillation`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit import arguments
from keras_vit.models import VisionTransformer
from keras_vit.types import Shape

_LOCAL_SHARE = 3 / 7  # of a side of the global views: 96 of 224 pixels


def count(value: int, name: str) -> int:
    """Returns `value`, if it is an integer of 0 or more; raises a ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
            f"`{name}` must be an integer of 0 or more. Received: {name}={value!r}"
        )
    return value


def temperature(value: float, name: str) -> float:
    """Returns `value`, if it is positive and finite; raises a ValueError otherwise."""
    if isinstance(value, str) or not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be positive. Received: {name}={value!r}")
    return value


def check_precision(encoder: VisionTransformer) -> None:
    """Raises a ValueError if an encoder's weights are in half precision."""
    dtype = encoder.dtype_policy.variable_dtype
    if dtype not in ("float32", "float64"):
        raise ValueError(
            "The teacher moves by less than weights of half precision can tell. Received: "
            f"{encoder.name!r} with weights in {dtype}. Use the policy 'mixed_{dtype}', "
            "whose weights are float32."
        )


def local_size(
    encoder: VisionTransformer, size: int | tuple[int, int] | None
) -> tuple[int, int]:
    """The (height, width) of local views, see `local_image_size` of `SelfDistillation`.

    Raises:
        ValueError: if the patches do not divide it.
    """
    fields = encoder.fields
    if size is None:
        sides = zip(fields.image_size, fields.patch_size, strict=True)
        return tuple(
            max(1, round(side / patch * _LOCAL_SHARE)) * patch for side, patch in sides
        )
    size = arguments.pair(size, "local_image_size")
    if any(np.remainder(size, fields.patch_size)):
        raise ValueError(
            "`local_image_size` must be divisible by the patches. Received: "
            f"local_image_size={size} for {encoder.name!r} with patches of "
            f"{fields.patch_size}"
        )
    return size


def check_views(views: Any, shapes: Mapping[str, Shape]) -> None:
    """Raises a ValueError if views have not the given shapes, by their kind."""
    is_dictionary = isinstance(views, Mapping)
    found = {name: tuple(v.shape[1:]) for name, v in views.items()} if is_dictionary else ()
    if not is_dictionary or found != shapes:
        expected = ", ".join(f"{n!r}: (batch, {str(s)[1:]}" for n, s in shapes.items())
        given = ", ".join(f"{n!r}: (batch, {str(s)[1:]}" for n, s in dict(found).items())
        raise ValueError(
            f"`views` must be a dictionary of {expected}. Received: "
            f"{given or type(views).__name__}. `keras_vit.data.multi_crop(data, model)` "
            "makes views of a data set."
        )
