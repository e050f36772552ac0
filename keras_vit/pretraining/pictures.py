"""Pictures of what a model learns without labels: reconstructions and predicted colours."""

import numpy as np
from keras import ops

from keras_vit.layers.patches import cut_patches
from keras_vit.models import VisionTransformer
from keras_vit.models.sizes import grid_size
from keras_vit.pretraining.masked_autoencoder import MaskedAutoencoder
from keras_vit.pretraining.masked_patch_prediction import MaskedPatchPrediction

_GREY = 0.5  # of removed patches, on a scale from 0 to 1
_EPSILON = 1e-6  # as in MAE's loss

Pictures = list[np.ndarray]  # uint8 (height, width, channels)


def displayed(encoder: VisionTransformer, images: np.ndarray) -> Pictures:
    """Images as an encoder takes them, as uint8 arrays (height, width, channels)."""
    fields = encoder.fields
    if fields.data_format == "channels_first":
        images = np.moveaxis(images, 1, -1)
    return _as_uint8(
        images / 255 if fields.include_preprocessing else _unit(fields, images)
    )


def reconstructed(
    model: MaskedAutoencoder, images: np.ndarray, seed: int = 0
) -> tuple[Pictures, Pictures]:
    """The images with their removed patches in grey, and with these reconstructed.

    Under `norm_pix_loss` the model predicts pixels without the mean and the deviation of
    their patch; both are taken from the true patch, as in MAE's own pictures.

    Args:
        model: a masked autoencoder.
        images: a batch of images as the encoder takes them.
        seed: decides which patches are removed.

    Returns:
        Two lists of a picture for each image.
    """
    patches = _patches(model, images)
    outputs = _outputs(model, images, _noise(seed, patches.shape[:2]))
    prediction, removed = outputs["reconstruction"], outputs["mask"][..., None] > 0
    if model.norm_pix_loss:
        mean = patches.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + _EPSILON)
        prediction = prediction * deviation + mean
    true, prediction = (_unit_patches(model, part) for part in (patches, prediction))
    return (
        _joined(model, np.where(removed, _GREY, true)),
        _joined(model, np.where(removed, prediction, true)),
    )


def colored(
    model: MaskedPatchPrediction, images: np.ndarray, seed: int = 0
) -> tuple[Pictures, Pictures]:
    """The images with the true and with the predicted colours of the corrupted patches.

    Args:
        model: a model of masked patch prediction.
        images: a batch of images as the encoder takes them.
        seed: decides which patches are corrupted, and how.

    Returns:
        Two lists of a picture for each image.
    """
    patches = _unit_patches(model, _patches(model, images))
    outputs = _outputs(model, images, _noise(seed, (*patches.shape[:2], 3)))
    true, predicted = outputs["targets"], outputs["predictions"]
    if model.target != "pixels":
        # As many levels of each channel as give the number of colours.
        levels = round(predicted.shape[-1] ** (1 / _channels(model.encoder.fields)))
        true, predicted = (
            _pixels_of_colors(model.encoder.fields, colors, levels)
            for colors in (true, predicted.argmax(axis=-1))
        )
    first, second = (
        _joined(model, _replaced(patches, outputs["corrupted"], pixels))
        for pixels in (true, predicted)
    )
    return first, second


def _outputs(model, images, noise) -> dict[str, np.ndarray]:
    outputs = model(ops.convert_to_tensor(images), ops.convert_to_tensor(noise))
    return {name: ops.convert_to_numpy(value) for name, value in outputs.items()}


def _noise(seed, shape) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def _patches(model, images) -> np.ndarray:
    """The pixels of each patch behind the model's own preprocessing."""
    images, fields = ops.convert_to_tensor(images), model.encoder.fields
    if fields.include_preprocessing:
        images = model.encoder.get_layer("preprocessing")(images)
    patches = cut_patches(images, fields.patch_size, fields.data_format)
    patches = np.array(ops.convert_to_numpy(patches))
    return patches.reshape(len(patches), -1, patches.shape[-1])


def _channels(fields) -> int:
    return fields.input_shape[-1 if fields.data_format == "channels_last" else 0]


def _unit_patches(model, patches) -> np.ndarray:
    """Patches on a scale from 0 to 1."""
    fields = model.encoder.fields
    pixels = patches.reshape(*patches.shape[:-1], -1, _channels(fields))
    return _unit(fields, pixels).reshape(patches.shape)


def _unit(fields, values) -> np.ndarray:
    """Values on a scale from 0 to 1, channels last."""
    return values * np.asarray(fields.image_std) + np.asarray(fields.image_mean)


def _replaced(patches, places, pixels) -> np.ndarray:
    changed = patches.copy()
    np.put_along_axis(changed, places[..., None].astype(int), pixels, axis=1)
    return changed


def _joined(model, patches) -> Pictures:
    """Pictures of patches on a scale from 0 to 1."""
    fields = model.encoder.fields
    rows, columns = grid_size(fields.image_size, fields.patch_size)
    height, width = fields.patch_size
    channels = _channels(fields)
    images = patches.reshape(-1, rows, columns, height, width, channels)
    images = images.swapaxes(2, 3)  # (batch, rows, height, columns, width, channels)
    return _as_uint8(images.reshape(-1, rows * height, columns * width, channels))


def _as_uint8(images) -> Pictures:
    return list(np.round(255 * np.clip(images, 0, 1)).astype("uint8"))


def _pixels_of_colors(fields, colors, levels) -> np.ndarray:
    """Pixels (batch, corrupted, pixels) on a scale from 0 to 1 of numbers of colours.

    Args:
        fields: of the encoder.
        colors: int (batch, corrupted) or (batch, corrupted, cells²).
        levels: number of values of each channel.
    """
    channels, (height, width) = _channels(fields), fields.patch_size
    digits = levels ** np.arange(channels - 1, -1, -1)
    values = (colors[..., None] // digits % levels + 0.5) / levels
    batch, corrupted = colors.shape[:2]
    cells = 1 if colors.ndim == 2 else round(colors.shape[2] ** 0.5)
    values = values.reshape(batch, corrupted, cells, 1, cells, 1, channels)
    shape = (batch, corrupted, cells, height // cells, cells, width // cells, channels)
    return np.broadcast_to(values, shape).reshape(batch, corrupted, -1)
