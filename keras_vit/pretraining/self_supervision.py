"""The base of models that train an encoder without labels."""

import math
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers.patches import cut_patches
from keras_vit.layers.trainability import (
    TRAINABLE_PARTS,
    set_trainable_parts,
    trainable_parts,
)
from keras_vit.models import VisionTransformer
from keras_vit.models.fields import num_prefix
from keras_vit.models.sizes import grid_size
from keras_vit.types import Tensor

# Argument of the encoder → its values that can be pre-trained, and what it should be.
_NEEDED = {
    "classes": ((0,), "no head (classes=0)"),
    "representation_size": ((None,), "no `pre_logits`"),
    "merged_tokens": ((0,), "every token in each block"),
    "stem": ((None,), "patches that know nothing of each other"),
}
_NEEDED_OF_TOKENS = {
    "pooling": (("token", "gap", "token_gap", None), "no attention pooling"),
    "fc_norm": ((False,), "a final norm of every token"),
}


class SelfSupervision(keras.Model):
    """A model around an encoder, with a loss of its own, which needs no labels.

    A class of this kind returns a dictionary with the scalar `"loss"`. It takes images with
    labels as well, and does not read these.

    Args:
        encoder: a built `VisionTransformer` without a head, for images of one size.
        dtype: dtype policy of the layers beside the encoder, `None` for the encoder's.
        name: str, the model's name.
        trainable: bool, whether the model's weights are to be trained.
        needed: more demands on the encoder: argument → the values that can be trained,
            and a phrase of what it should have.

    Raises:
        ValueError: if the encoder cannot be pre-trained so.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        dtype: str | keras.DTypePolicy | None,
        name: str | None,
        trainable: bool,
        needed: Mapping[str, tuple[tuple, str]] | None = None,
    ):
        kind = type(self).__name__
        _check_encoder(encoder, kind, {**_NEEDED, **(needed or {})})
        policy = keras.dtype_policies.get(dtype or encoder.dtype_policy)
        # Without `autocast`, which would round images and noise to half precision.
        super().__init__(dtype=policy, name=name, trainable=trainable, autocast=False)
        self.encoder = encoder
        self._predictor = None

    @property
    def kept_encoder(self) -> VisionTransformer:
        """The encoder to keep after the training: to evaluate, to save, to fine-tune."""
        return self.encoder

    def symbolic_inputs(self) -> Any:
        """The `keras.Input` of `call`, or a dictionary of several."""
        return keras.Input(self.encoder.input_shape[1:])

    # Training.

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **options: Any) -> None:
        """Configures the training as Keras does; the model has its own loss.

        Raises:
            ValueError: if a loss is given.
        """
        if loss is not None:
            raise ValueError(
                f"A `{type(self).__name__}` has its own loss. Received: loss="
                f"{loss!r}. Compile it with an optimizer alone."
            )
        super().compile(optimizer, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model; Keras asks for it where `compile` is a class's own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def predict(self, x: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Predicts as Keras does, without the loss, which is one number for a batch."""
        if self._predictor is None:
            inputs = self.symbolic_inputs()
            outputs = self(inputs)
            del outputs["loss"]
            # As a method, which Keras does not track: the model is no part of this one.
            self._predictor = keras.Model(inputs, outputs).predict
        return self._predictor(x, *arguments, **options)

    # Configuration.

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        config = {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
        }
        parts = trainable_parts(self)
        return {**config, **({TRAINABLE_PARTS: parts} if parts else {})}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Self:
        """Builds the model of a `get_config`, with new weights."""
        fields = dict(config)
        parts = fields.pop(TRAINABLE_PARTS, {})
        fields["encoder"] = keras.saving.deserialize_keras_object(
            fields["encoder"], custom_objects
        )
        model = cls(**fields)
        set_trainable_parts(model, parts)
        return model


class MaskedSelfSupervision(SelfSupervision):
    """A `SelfSupervision` in which the encoder does not see some patches as they are.

    The loss is added by `add_loss`.

    Args:
        encoder: see `SelfSupervision`.
        mask_ratio: float in [0, 1), share of the patches that the encoder does not see as
            they are.
        seed: int, seed of the choice of patches; `None` for a random one.
        dtype: see `SelfSupervision`.
        name: see `SelfSupervision`.
        trainable: see `SelfSupervision`.
        needed: see `SelfSupervision`.

    Raises:
        ValueError: if `mask_ratio` is out of its range, or the encoder cannot be
            pre-trained so.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        mask_ratio: float,
        seed: int | None,
        needed: Mapping[str, tuple[tuple, str]] | None = None,
        **options: Any,
    ):
        super().__init__(encoder, needed=_NEEDED_OF_TOKENS | dict(needed or {}), **options)
        fields = encoder.fields
        _check_rotary_positions(encoder, type(self).__name__)
        self.mask_ratio = arguments.rate(mask_ratio, "mask_ratio")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

        self._num_prefix = num_prefix(fields)
        self._grid_size = grid_size(fields.image_size, fields.patch_size)
        self._num_patches = math.prod(self._grid_size)
        self._channels = fields.input_shape[
            -1 if fields.data_format == "channels_last" else 0
        ]

    @property
    def num_patches(self) -> int:
        """Number of patches of an image."""
        return self._num_patches

    def _noise(self, noise: Tensor | None, images: Tensor, *numbers: int) -> Tensor:
        """Noise (batch, patches, *numbers): what is given, or random numbers in [0, 1)."""
        shape = (self._num_patches, *numbers)
        batch, length = images.shape[0], ops.shape(images)[0]
        if noise is None:
            return keras.random.uniform(
                (length, *shape), dtype="float32", seed=self.seed_generator
            )
        noise = ops.convert_to_tensor(noise)
        found = tuple(noise.shape)
        if found[1:] != shape or (None not in (batch, found[0]) and batch != found[0]):
            raise ValueError(
                f"`noise` must have the shape {(batch, *shape)}, (batch, patches"
                f"{', numbers' if numbers else ''}). Received: noise of shape {found}"
            )
        return noise

    def _cut(self, images: Tensor) -> Tensor:
        """The pixels of each patch, float32 (batch, patches, pixels)."""
        fields = self.encoder.fields
        images = ops.cast(images, "float32")
        patches = cut_patches(images, fields.patch_size, fields.data_format)
        return ops.reshape(patches, (-1, self._num_patches, patches.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        return {**super().get_config(), "mask_ratio": self.mask_ratio, "seed": self.seed}


def _check_encoder(encoder, kind, needed):
    """Raises a ValueError if an encoder cannot be pre-trained by a model of a kind."""
    if not isinstance(encoder, VisionTransformer):
        raise ValueError(
            "`encoder` must be a `VisionTransformer`. Received: "
            f"{type(encoder).__name__} {encoder!r}"
        )
    fields = encoder.fields
    for name, (values, need) in needed.items():
        value = getattr(fields, name)
        if name == "merged_tokens":
            value = sum(value)
        if value not in values:
            raise ValueError(
                f"`{kind}` needs an encoder with {need}. Received: "
                f"{encoder.name!r} with {name}={getattr(fields, name)!r}. Build it with "
                f"{name}={values[0]!r}; `keras_vit.from_pretrained(model, classes=0)` is a "
                "copy without a head."
            )
    if None in fields.input_shape:
        raise ValueError(
            f"`{kind}` must know the number of patches. Received: "
            f"{encoder.name!r} with input_shape={fields.input_shape}. Give height and "
            "width: `keras_vit.from_pretrained(model, image_size=…)`."
        )


def _check_rotary_positions(encoder, kind):
    rope = encoder.fields.rope
    if rope is not None and rope["kind"] == "mixed":
        raise ValueError(
            f"`{kind}` needs rotary positions that are the same in each block. "
            f"Received: {encoder.name!r} with rope={rope}, learned ones. Use "
            "another kind."
        )
