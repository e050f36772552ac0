"""Images as rows of patches."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit import arguments

_SMALLEST, _LARGEST, _STEP = 1e-6, 100.0, 1e-5  # scales of an image


def fitting_size(
    height: int, width: int, patch_size: int | tuple[int, int], num_patches: int
) -> tuple[int, int]:
    """The size to which NaFlex resizes an image: as many patches as may be.

    Source: SigLIP 2 (arXiv 2502.14786), section 2.4.2: the aspect ratio is kept but for
    the rounding to whole patches. The scale is searched for as in its code, in halves, so
    that the sizes are those of transformers' `Siglip2ImageProcessor`.

    Args:
        height: int, of the image in pixels.
        width: int, of the image in pixels.
        patch_size: int or (height, width), in pixels.
        num_patches: int, how many patches it may have.

    Returns:
        (height, width), multiples of the patch's, of one patch at least.
    """
    sides = arguments.positive(height, "height"), arguments.positive(width, "width")
    patches = arguments.pair(patch_size, "patch_size")
    arguments.positive(num_patches, "num_patches")

    def grid(scale):
        return [
            max(1, math.ceil(side * scale / patch))
            for side, patch in zip(sides, patches, strict=True)
        ]

    low, high = _SMALLEST, _LARGEST
    while high - low >= _STEP:
        middle = (low + high) / 2
        if math.prod(grid(middle)) <= num_patches:
            low = middle
        else:
            high = middle
    rows, columns = grid(low)
    return rows * patches[0], columns * patches[1]


def pack_images(
    images: Sequence[Any],
    patch_size: int | tuple[int, int],
    num_patches: int | None = None,
) -> dict[str, np.ndarray]:
    """A batch of images of several shapes for `NaFlexModel`.

    Args:
        images: arrays (height, width, channels), channels last, as the encoder takes them
            otherwise; height and width are multiples of the patch's (`fitting_size`).
        patch_size: int or (height, width), in pixels.
        num_patches: int, number of patches to which each image is padded with zeros; `None`
            for that of the largest.

    Returns:
        A dictionary of `"patches"` (images, num_patches, pixels), the pixels by row, column
        and channel, in the images' dtype; `"mask"`, int32 (images, num_patches), 0 for
        padding; `"spatial_shapes"`, int32 (images, 2), rows and columns of patches.

    Raises:
        ValueError: if there is no image, one does not consist of whole patches, or of more
            than `num_patches`, or they differ in channels.

    Example:

    >>> batch = pack_images([np.zeros((32, 48, 3)), np.zeros((40, 24, 3))], patch_size=8)
    >>> batch["patches"].shape, batch["spatial_shapes"].tolist()
    ((2, 24, 192), [[4, 6], [5, 3]])
    """
    size = arguments.pair(patch_size, "patch_size")
    arrays = [np.asarray(image) for image in images]
    _check(arrays, size)
    rows = [_in_patches(array, size) for array in arrays]
    largest = max(map(len, rows))
    number = largest if num_patches is None else num_patches
    if arguments.positive(number, "num_patches") < largest:
        raise ValueError(
            "`num_patches` must not be less than the patches of an image. Received: "
            f"num_patches={number}, and an image of {largest} patches. `fitting_size` "
            "tells the size to which to resize it."
        )
    shapes = [(a.shape[0] // size[0], a.shape[1] // size[1]) for a in arrays]
    padded = np.zeros((len(rows), number, rows[0].shape[1]), np.result_type(*rows))
    mask = np.zeros((len(rows), number), "int32")
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {
        "patches": padded,
        "mask": mask,
        "spatial_shapes": np.array(shapes, "int32"),
    }


def _check(arrays, size):
    shapes = [array.shape for array in arrays]
    if (
        not shapes
        or {len(shape) for shape in shapes} != {3}
        or len({s[2] for s in shapes}) > 1
    ):
        raise ValueError(
            "`images` must be arrays (height, width, channels) of as many channels each, "
            f"and one at least. Received: {shapes}"
        )
    for height, width, _ in shapes:
        if height % size[0] or width % size[1] or not height * width:
            raise ValueError(
                "Each image must consist of whole patches. Received: an image of "
                f"{height} × {width} pixels for patches of {size[0]} × {size[1]}. Resize "
                "it to `fitting_size(height, width, patch_size, num_patches)`."
            )


def _in_patches(image, size):
    """(height, width, channels) → (patches, pixels)."""
    height, width, channels = image.shape
    rows, columns = height // size[0], width // size[1]
    cut = image.reshape(rows, size[0], columns, size[1], channels)
    return cut.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
