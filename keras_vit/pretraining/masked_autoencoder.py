"""Masked autoencoders."""

import math
import os
from typing import Any

import keras
from keras import ops

from keras_vit import weight_paths
from keras_vit.layers import kernels
from keras_vit.layers.position import POSITIONS as ABSOLUTE
from keras_vit.models import VisionTransformer, encoding
from keras_vit.pretraining.decoder import MaskedDecoder
from keras_vit.pretraining.published import read_masked
from keras_vit.pretraining.self_supervision import MaskedSelfSupervision
from keras_vit.types import Shape, Tensor

_EPSILON = 1e-6  # added to the variance of a patch's pixels


@keras.saving.register_keras_serializable(package="keras_vit")
class MaskedAutoencoder(MaskedSelfSupervision):
    """An encoder that learns without labels, from images of which most patches are removed.

    Source: *Masked Autoencoders Are Scalable Vision Learners* (MAE, arXiv 2111.06377).
    The encoder computes the kept patches alone; a light decoder reconstructs the pixels of
    all patches; the loss is the mean squared error on the removed ones. The model has
    its own loss: `compile(optimizer)`, then `fit(images)`. Data of images and labels is
    taken as well; labels and weights of examples are not read. Afterwards `.encoder` is
    kept.

    Args:
        encoder: a built `VisionTransformer` without a head (`classes=0`), for images of
            one size. In the paper its positions are fixed (`position="sincos2d"`, or
            frozen ones); learned positions are trained.
        decoder_hidden_dim: int, width of the decoder's tokens, divisible by 4.
        decoder_num_layers: int, number of the decoder's blocks.
        decoder_num_heads: int, attention heads of these, a divisor of
            `decoder_hidden_dim`.
        decoder_mlp_dim: int, width of the hidden layers of their MLPs; `None` for four
            times `decoder_hidden_dim`.
        mask_ratio: float in [0, 1), share of the patches that is removed from each image.
        norm_pix_loss: bool, whether each patch is to be reconstructed after its own mean is
            subtracted and its own deviation divided out, which makes better encoders (the
            paper's section 4.1, *Reconstruction target*).
        seed: int, seed of the choice of patches; `None` for a random one.
        dtype: dtype policy of the decoder, `None` for the encoder's. Under any policy the
            predicted pixels and the loss are float32.
        name: str, the model's name.
        trainable: bool, whether the model's weights are to be trained.

    Call arguments:
        images: a batch of images as the encoder takes them.
        noise: float (batch, patches), the patches with the least noise are kept; `None`
            for random noise.

    Returns:
        A dictionary of `"reconstruction"`, float32 (batch, patches, pixels), the pixels
        of a patch by row, column and channel; `"mask"`, float32 (batch, patches), 1 where a
        patch was removed; `"loss"`, a float32 scalar, 0 if no patch is removed, which
        `predict` leaves out.

    Raises:
        ValueError: if an argument is out of its range, or the encoder cannot be
            pre-trained so.

    Example:

    >>> encoder = keras_vit.ViTB16(weights=None, include_top=False, position="sincos2d")
    >>> mae = MaskedAutoencoder(encoder)
    >>> mae.compile(keras.optimizers.AdamW(1.5e-4, weight_decay=0.05, beta_2=0.95))
    >>> mae.fit(images, epochs=800)
    >>> classifier = keras_vit.from_pretrained(mae.encoder, classes=102)
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        decoder_hidden_dim: int = 512,
        decoder_num_layers: int = 8,
        decoder_num_heads: int = 16,
        decoder_mlp_dim: int | None = None,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = True,
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
            needed={
                "position": (ABSOLUTE, "positions of each patch alone"),
                "position_at": (("stem",), "positions that are added before the blocks"),
            },
        )
        fields = encoder.fields
        self.norm_pix_loss = norm_pix_loss
        self.num_kept: int = int(self._num_patches * (1 - mask_ratio))
        if not self.num_kept:
            raise ValueError(
                "`mask_ratio` must leave at least one patch. Received: mask_ratio="
                f"{mask_ratio} for {self._num_patches} patches"
            )
        self.decoder = MaskedDecoder(
            decoder_hidden_dim,
            decoder_num_layers,
            decoder_num_heads,
            decoder_mlp_dim or 4 * decoder_hidden_dim,
            grid_size=self._grid_size,
            num_pixels=math.prod(fields.patch_size) * self._channels,
            num_prefix=self._num_prefix,
            qkv_bias=fields.qkv_bias,
            gelu_approximate=fields.gelu_approximate,
            layer_norm_epsilon=fields.layer_norm_epsilon,
            interpolation=fields.position_interpolation,
            rematerialize=fields.rematerialize,
            dtype=self.dtype_policy,
            name="decoder",
        )
        self._embed = encoding.embedding(encoder)
        self.build(encoder.input_shape)
        weight_paths.mark(self.decoder, f"{self.name}/")

    def build(self, images_shape: Shape) -> None:
        if not self.decoder.built:
            self.decoder.build((None, None, self.encoder.fields.hidden_dim))

    def call(
        self, images: Tensor, noise: Tensor | None = None, training: bool | None = None
    ) -> dict[str, Tensor]:
        encoded = self.encode(images, noise)
        reconstruction = self.decoder(encoded["tokens"], encoded["places"])
        loss = self._loss(images, reconstruction, encoded["mask"])
        if training:
            self._check_training()
        self.add_loss(loss)  # Keras divides it among devices
        return {"reconstruction": reconstruction, "mask": encoded["mask"], "loss": loss}

    def encode(self, images: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """The encoder's outputs for the patches that are kept.

        Args:
            images: a batch of images as the encoder takes them.
            noise: see the class.

        Returns:
            A dictionary of `"tokens"` (batch, tokens, hidden_dim), the tokens before the
            patches and the kept patches by their noise; `"places"`, int32 (batch,
            patches), for each patch its place in the order of the noise; `"mask"`, see the
            class.
        """
        inputs = self._embed(images)
        tokens = inputs["tokens"]  # (batch, prefix + patches, hidden_dim)
        batch = ops.shape(tokens)[0]
        noise = self._noise(noise, images)
        order = ops.argsort(noise, axis=1)  # (batch, patches)
        places = ops.argsort(order, axis=1)
        prefix = ops.broadcast_to(ops.arange(self._num_prefix), (batch, self._num_prefix))
        order = ops.cast(order[:, : self.num_kept], "int32") + self._num_prefix
        chosen = ops.concatenate([ops.cast(prefix, "int32"), order], axis=1)
        inputs["tokens"] = kernels.take_tokens(tokens, chosen)
        if "positions" in inputs:
            # (2, batch, 1, prefix + kept, head_dim), for every head
            inputs["positions"] = ops.take(inputs["positions"], chosen, axis=1)[:, :, None]
        return {
            "tokens": encoding.encode(self.encoder, **inputs),
            "places": places,
            "mask": ops.cast(places >= self.num_kept, "float32"),
        }

    def _loss(self, images, reconstruction, mask):
        """The mean squared error on the removed patches, 0 where none is removed."""
        errors = ops.square(reconstruction - self._targets(images))
        errors = ops.mean(errors, axis=-1) * mask  # (batch, patches)
        removed = self._num_patches - self.num_kept
        return ops.mean(ops.sum(errors, axis=1)) / max(removed, 1)

    def _targets(self, images):
        """The pixels to reconstruct, float32 (batch, patches, pixels)."""
        if self.encoder.fields.include_preprocessing:
            images = self.encoder.get_layer("preprocessing")(images)
        patches = self._cut(images)
        pixels = patches.shape[-1]
        if not self.norm_pix_loss:
            return patches
        centred = patches - ops.mean(patches, axis=-1, keepdims=True)
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (pixels - 1)
        return centred / ops.sqrt(variance + _EPSILON)

    # Training.

    def _check_training(self):
        if self.num_kept == self._num_patches:
            raise ValueError(
                "The loss is on removed patches, of which there are none. Received: "
                f"mask_ratio={self.mask_ratio}. Train with a higher one, such as 0.75."
            )

    # Configuration.

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        key: str | None = None,
        position_grid: tuple[int, int] | None = None,
        **overrides: Any,
    ) -> "MaskedAutoencoder":
        """Builds the model of a published masked autoencoder, with its weights.

        Its positions are fixed ones, and stay untrained, also in copies of the encoder,
        unless these are made with `trainable=True`.

        Args:
            source: address or path of a file with an encoder and a decoder, of
                transformers' `ViTMAEForPreTraining` or of MAE's own code; see
                `keras_vit.from_pretrained`.
            key: see `keras_vit.from_pretrained`.
            position_grid: see `keras_vit.from_pretrained`.
            **overrides: arguments of the encoder, as in `keras_vit.from_pretrained`, and
                of this class: `mask_ratio`, `seed`, `name`, `trainable` and what a file
                without a `config.json` does not tell, `norm_pix_loss` and, where the
                decoder is not 512 wide, `decoder_num_heads`.

        Raises:
            FileNotFoundError: if there is no such file.
            ConnectionError: if a file cannot be downloaded.
            ValueError: if the file is damaged or foreign, has no such decoder, lacks a
                value that no other source gives, or does not fit the overrides.
        """
        reading = {"key": key, "position_grid": position_grid}
        return read_masked(source, cls, overrides, **reading)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        return {
            **super().get_config(),
            "decoder_hidden_dim": self.decoder.hidden_dim,
            "decoder_num_layers": self.decoder.num_layers,
            "decoder_num_heads": self.decoder.num_heads,
            "decoder_mlp_dim": self.decoder.mlp_dim,
            "norm_pix_loss": self.norm_pix_loss,
        }
