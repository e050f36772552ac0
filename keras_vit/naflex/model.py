"""A Vision Transformer of images of several shapes in one batch."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_vit.models import VisionTransformer, encoding
from keras_vit.models.fields import num_prefix
from keras_vit.models.token_features import by_kind
from keras_vit.types import Tensor

# Argument of the encoder → its values that patches of several shapes can have.
_NEEDED = {
    "position": ("learned", "none"),
    "position_at": ("stem",),
    "rope": (None,),
    "stem": (None,),
    "distilled": (False,),
}
_INPUTS = ("patches", "mask", "spatial_shapes")


@keras.saving.register_keras_serializable(package="keras_vit")
class NaFlexModel(keras.Model):
    """A `VisionTransformer` that takes images of several shapes in one batch, as patches.

    Source: NaFlex of SigLIP 2 (arXiv 2502.14786), section 2.4.2, after NaViT (arXiv
    2307.06304). Each image is a row of its patches, padded to one length. Its positions
    are the encoder's, resized to its rows and columns; attention and pooling leave out the
    padding. So each image gets what the encoder computes of it alone.

    The weights are the encoder's. `from_pretrained`, `load_weights` and `save_weights` take
    `.encoder`; `compile`, `fit` and `save` are those of any Keras model.

    Args:
        encoder: a `VisionTransformer` with learned positions, or without any.
        name: str, the model's name.
        trainable: bool, whether the model's weights are to be trained.

    Call arguments:
        inputs: dictionary of `"patches"` (batch, patches, pixels), `"mask"` (batch,
            patches), 0 for padding, and `"spatial_shapes"` (batch, 2), rows and columns
            of each image's patches, as `pack_images` makes it of a list of images. They
            are transformers' `pixel_values`, `pixel_attention_mask` and `spatial_shapes`.

    Returns:
        What the encoder returns: float32 (batch, classes), without a head (batch,
        hidden_dim), or with `pooling=None` (batch, tokens, hidden_dim), where tokens of
        the padding mean nothing.

    Raises:
        ValueError: if the encoder cannot take such patches.

    Example:

    >>> encoder = keras_vit.from_pretrained("hf://google/siglip2-base-patch16-naflex")
    >>> model = NaFlexModel(encoder)
    >>> embeddings = model.predict(pack_images(images, patch_size=16, num_patches=256))
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        name: str | None = None,
        trainable: bool = True,
    ):
        _check_encoder(encoder)
        # Without `autocast`, which would round pixel values.
        policy = encoder.dtype_policy
        super().__init__(dtype=policy, name=name, trainable=trainable, autocast=False)
        self.encoder = encoder
        self.built = True

    def call(self, inputs: Mapping[str, Tensor], training: bool | None = None) -> Tensor:
        tokens, sizes = self._encode(inputs)
        if not self.encoder.fields.pooling:
            return tokens
        outputs = by_kind(self.encoder, tokens, sizes)["pooled"]
        layers = {layer.name: layer for layer in self.encoder.layers}
        for name in ("pre_logits", "head"):
            outputs = layers[name](outputs) if name in layers else outputs
        return outputs

    def features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's output by kind of token, after the final norm.

        Args:
            inputs: see the class.

        Returns:
            A dictionary of tensors as of `VisionTransformer.features`; `"patch_tokens"` are
            (batch, patches, hidden_dim), of which those of the padding mean nothing.
        """
        return by_kind(self.encoder, *self._encode(inputs))

    def _encode(self, inputs):
        """Tokens (batch, tokens, hidden_dim), and how often each counts, 1 or 0."""
        _check_inputs(inputs)
        fields = self.encoder.fields
        layers = {layer.name: layer for layer in self.encoder.layers}
        patches = self._as_images(inputs["patches"])
        for name in ("preprocessing", "patch_embedding", "patch_norm"):
            patches = layers[name](patches) if name in layers else patches
        # (batch, patches, 1, hidden_dim)
        options = {}
        if fields.position == "learned":
            options["shapes"] = inputs["spatial_shapes"]
        found = encoding.first_block_inputs(self.encoder, patches, **options)
        mask = ops.cast(ops.cast(inputs["mask"], "bool"), "int32")
        sizes = ops.ones((ops.shape(mask)[0], num_prefix(fields)), "int32")
        sizes = ops.concatenate([sizes, mask], axis=1)  # (batch, tokens)
        return encoding.encode(self.encoder, **found, sizes=sizes), sizes

    def _as_images(self, patches):
        """Patches as images that are one patch wide, in the encoder's data format."""
        fields = self.encoder.fields
        height, width = fields.patch_size
        number, pixels = ops.shape(patches)[1:]
        channels = fields.input_shape[-1 if fields.data_format == "channels_last" else 0]
        if pixels != height * width * channels:
            raise ValueError(
                f"Patches of {height} × {width} pixels with {channels} channels are rows "
                f"of {height * width * channels} numbers. Received: patches of shape "
                f"{tuple(patches.shape)}. `pack_images` makes them of images."
            )
        images = ops.reshape(patches, (-1, number * height, width, channels))
        if fields.data_format == "channels_first":
            return ops.transpose(images, (0, 3, 1, 2))
        return images

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "NaFlexModel":
        """Builds the model of a `get_config`, with new weights."""
        encoder = keras.saving.deserialize_keras_object(config["encoder"], custom_objects)
        return cls(**{**config, "encoder": encoder})


def _check_inputs(inputs: Any) -> None:
    is_named = isinstance(inputs, Mapping)
    missing = [name for name in _INPUTS if not is_named or name not in inputs]
    if missing:
        raise ValueError(
            "`NaFlexModel` takes a dictionary of 'patches', 'mask' and 'spatial_shapes', "
            f"which `pack_images` makes of images. Received: a {type(inputs).__name__} "
            f"without {', '.join(map(repr, missing))}"
        )
    patches, mask, shapes = (tuple(inputs[name].shape) for name in _INPUTS)
    fits = len(patches) == 3 and mask[1:] == patches[1:2] and shapes[1:] == (2,)
    if not fits or len({len(mask), len(shapes)}) > 1:
        raise ValueError(
            "`NaFlexModel` takes patches (batch, patches, pixels), mask (batch, patches) "
            "and spatial_shapes (batch, 2). Received: shapes "
            f"{patches}, {mask} and {shapes}"
        )


def _check_encoder(encoder: Any) -> None:
    if not isinstance(encoder, VisionTransformer):
        raise ValueError(
            "`encoder` must be a `VisionTransformer`. Received: "
            f"{type(encoder).__name__} {encoder!r}"
        )
    for name, values in _NEEDED.items():
        value = getattr(encoder.fields, name)
        if value not in values:
            raise ValueError(
                "`NaFlexModel` resizes learned positions for each image, and has no place "
                f"for {name}={value!r}. Received: {encoder.name!r}. Call the encoder "
                "itself on images of one shape at a time."
            )
    if any(encoder.fields.merged_tokens):
        raise ValueError(
            "`NaFlexModel` keeps every token. Received: "
            f"{encoder.name!r} with merged_tokens={encoder.fields.merged_tokens}. Use "
            "`keras_vit.from_pretrained(model, merged_tokens=0)`."
        )
