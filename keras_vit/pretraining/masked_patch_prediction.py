"""Masked patch prediction, the ViT paper's own self-supervision."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments, weight_paths
from keras_vit.keras_internals.trainers import for_several_devices
from keras_vit.layers import kernels
from keras_vit.layers.dense import Dense
from keras_vit.layers.initial_values import initializer
from keras_vit.models import VisionTransformer, encoding
from keras_vit.pretraining.corruption import PatchCorruption
from keras_vit.pretraining.self_supervision import MaskedSelfSupervision
from keras_vit.types import Shape, Tensor

_LEVELS = 8  # of each channel: 3 bits
# Target → rows and columns of the cells of a patch whose colours are predicted.
_CELLS = {"mean_color": 1, "downsized": 4, "pixels": None}


@keras.saving.register_keras_serializable(package="keras_vit")
class MaskedPatchPrediction(MaskedSelfSupervision):
    """An encoder that learns without labels, from the colours of corrupted patches.

    Source: ViT (arXiv 2010.11929), appendix B.1.2, *Self-supervision*. Half of the patch
    embeddings are corrupted before positions are added, see `PatchCorruption`. A linear
    layer predicts the colour of each corrupted patch from its output token; the loss is the
    mean over the corrupted patches. The model has its own loss: `compile(optimizer)`, then
    `fit(images)`. Data of images and labels is taken as well; labels and weights of
    examples are not read. Afterwards `.encoder` is kept.

    The logs of `fit` and `evaluate` have, but for `target="pixels"`, `accuracy`, the share
    of colours that are predicted, and `baseline_accuracy`, that of an answer that is always
    the most frequent colour among the batch's targets. An encoder that has learned
    something is better than this.

    Args:
        encoder: a built `VisionTransformer` without a head (`classes=0`), for images of
            one size, with one to three channels where colours are predicted. Its
            `image_mean` and `image_std` tell the pixel values of its images.
        target: `"mean_color"`, the patch's mean colour in 3 bits a channel, one of 512 for
            three channels; `"downsized"`, the colours of the patch made 4 × 4 by means, 16
            predictions, whose patches have sides divisible by 4; `"pixels"`, all pixels on
            a scale from 0 to 1, by their mean squared error.
        mask_ratio: float in [0, 1), share of the patches of each image that is corrupted.
        seed: int, seed of the corruption; `None` for a random one.
        dtype: dtype policy of the corruption, `None` for the encoder's. Under any policy
            the predictions and the loss are float32.
        name: str, the model's name.
        trainable: bool, whether the model's weights are to be trained.

    Call arguments:
        images: a batch of images as the encoder takes them.
        noise: float32 in [0, 1), (batch, patches, 3), which decides the corruption, see
            `PatchCorruption`; `None` for random noise.

    Returns:
        A dictionary of `"corrupted"`, int32 (batch, corrupted), the places of the corrupted
        patches; `"predictions"`, float32 (batch, corrupted, 512) logits of
        `"mean_color"`, (batch, corrupted, 16, 512) of `"downsized"`, or (batch, corrupted,
        pixels); `"targets"`, int32 (batch, corrupted) or (batch, corrupted, 16) numbers of
        colours, 64 · red + 8 · green + blue, or float32 (batch, corrupted, pixels); and
        `"loss"`, a float32 scalar, which `predict` leaves out.

    Raises:
        ValueError: if an argument is out of its range, or the encoder cannot be
            pre-trained so.

    Example:

    >>> encoder = keras_vit.ViTB16(weights=None, include_top=False)
    >>> model = MaskedPatchPrediction(encoder)
    >>> model.compile(keras.optimizers.Adam(2e-4))
    >>> model.fit(images, epochs=14)
    >>> classifier = keras_vit.from_pretrained(model.encoder, classes=102)
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        target: str = "mean_color",
        mask_ratio: float = 0.5,
        seed: int | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(
            encoder,
            mask_ratio=mask_ratio,
            seed=seed,
            dtype=dtype,
            name=name,
            trainable=trainable,
        )
        self.target = arguments.one_of(target, _CELLS, "target")
        self._cells = _CELLS[target]
        if self._cells:
            _check_colors(encoder, self._channels, target, self._cells)
        self.num_corrupted: int = round(self._num_patches * mask_ratio)
        if not self.num_corrupted or self._num_patches < 2:
            raise ValueError(
                "`mask_ratio` must corrupt at least one patch of at least two. Received: "
                f"mask_ratio={mask_ratio} for {self._num_patches} patches"
            )
        self.corruption = PatchCorruption(
            self.num_corrupted, dtype=self.dtype_policy, name="corruption"
        )
        # In float32 under any policy, as the heads of classifiers.
        self.prediction = Dense(
            math.prod(self._prediction_shape()),
            kernel_initializer=initializer("glorot_uniform"),
            dtype="float32",
            name="prediction",
        )
        self._embed = encoding.patch_embedding(encoder)
        self.accuracy: keras.metrics.Mean | None = None
        self.baseline_accuracy: keras.metrics.Mean | None = None
        if self._cells:
            self.accuracy = keras.metrics.Mean(name="accuracy")
            self.baseline_accuracy = keras.metrics.Mean(name="baseline_accuracy")
        self.build(encoder.input_shape)
        for layer in (self.corruption, self.prediction):
            weight_paths.mark(layer, f"{self.name}/")

    def build(self, images_shape: Shape) -> None:
        for layer in (self.corruption, self.prediction):
            if not layer.built:
                layer.build((None, None, self.encoder.fields.hidden_dim))

    def call(self, images: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        patches = self._embed(images)  # (batch, rows, columns, hidden_dim)
        noise, width = self._noise(noise, images, 3), patches.shape[-1]
        patches = ops.reshape(patches, (-1, self._num_patches, width))
        patches, corrupted = self.corruption(patches, noise)
        patches = ops.reshape(patches, (-1, *self._grid_size, width))
        inputs = encoding.first_block_inputs(self.encoder, patches)
        tokens = encoding.encode(self.encoder, **inputs)[:, self._num_prefix :]
        tokens = kernels.take_tokens(tokens, corrupted)  # (batch, corrupted, hidden_dim)
        predictions = ops.reshape(
            self.prediction(tokens), (-1, self.num_corrupted, *self._prediction_shape())
        )
        targets = self._targets(images, corrupted)
        loss = self._loss(predictions, targets)
        self.add_loss(loss)  # Keras divides it among devices
        return {
            "corrupted": corrupted,
            "predictions": predictions,
            "targets": targets,
            "loss": loss,
        }

    def _prediction_shape(self):
        """The shape of the numbers that are predicted for each patch."""
        if not self._cells:
            return (math.prod(self.encoder.fields.patch_size) * self._channels,)
        cells = (self._cells**2,) if self._cells > 1 else ()
        return (*cells, _LEVELS**self._channels)

    def _targets(self, images, corrupted):
        """The pixels or the numbers of the colours of the corrupted patches."""
        fields, channels = self.encoder.fields, self._channels
        pixels = kernels.take_tokens(self._cut(images), corrupted)
        height, width = fields.patch_size
        pixels = ops.reshape(pixels, (-1, self.num_corrupted, height * width, channels))
        if fields.include_preprocessing:
            pixels = pixels / 255
        else:
            std, mean = map(_constant, (fields.image_std, fields.image_mean))
            pixels = pixels * std + mean
        if not self._cells:
            return ops.reshape(pixels, (-1, self.num_corrupted, *self._prediction_shape()))
        n = self._cells
        pixels = ops.reshape(
            pixels, (-1, self.num_corrupted, n, height // n, n, width // n, channels)
        )
        levels = ops.floor(_LEVELS * ops.mean(pixels, axis=(3, 5)))
        levels = ops.cast(ops.clip(levels, 0, _LEVELS - 1), "int32")
        # (batch, corrupted, n, n, channels)
        digits = _constant(_LEVELS ** np.arange(channels - 1, -1, -1), "int32")
        colors = ops.sum(levels * digits, axis=-1)
        cells = self._prediction_shape()[:-1]
        return ops.reshape(colors, (-1, self.num_corrupted, *cells))

    def _loss(self, predictions, targets):
        if not self._cells:
            return ops.mean(ops.square(predictions - targets))
        return ops.mean(
            ops.sparse_categorical_crossentropy(targets, predictions, from_logits=True)
        )

    @for_several_devices
    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics by a batch's outputs, and returns their values."""
        if self._cells:
            targets, predictions = y_pred["targets"], y_pred["predictions"]
            colors = predictions.shape[-1]
            answers = ops.cast(ops.argmax(predictions, axis=-1), "int32")
            hits = ops.cast(answers == targets, "float32")
            targets = ops.reshape(targets, (-1,))
            counts = ops.segment_sum(ops.ones_like(targets), targets, num_segments=colors)
            number = ops.cast(ops.size(targets), "float32")
            frequent = ops.cast(ops.max(counts), "float32") / number
            self.accuracy.update_state(hits)
            # Each batch weighs its number of colours, as in the accuracy.
            self.baseline_accuracy.update_state(frequent, sample_weight=number)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        return {**super().get_config(), "target": self.target}


def _constant(values, dtype="float32"):
    """A number, or one for each channel, as a tensor."""
    return ops.convert_to_tensor(np.asarray(values), dtype)


def _check_colors(encoder, channels, target, cells):
    """Raises a ValueError if an encoder's patches have no colours to predict."""
    if channels > 3:
        raise ValueError(
            f"`target={target!r}` predicts colours of one to three channels. Received: "
            f'{encoder.name!r} with {channels} channels. Use target="pixels".'
        )
    if any(side % cells for side in encoder.fields.patch_size):
        raise ValueError(
            f"`target={target!r}` needs patches with sides divisible by {cells}. Received: "
            f"{encoder.name!r} with patch_size={encoder.fields.patch_size}. Use "
            'target="mean_color" or target="pixels".'
        )
