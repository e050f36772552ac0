"""Corruption of patch embeddings."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import kernels
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.types import Shape, Tensor

_MASKED, _REPLACED = 0.8, 0.1  # shares of the corrupted patches; the others are kept


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchCorruption(ValuesByNumPy, keras.layers.Layer):
    """Replaces embeddings of patches, as BERT replaces words.

    Source: ViT (arXiv 2010.11929), appendix B.1.2: of the corrupted patches 80 % become
    the learned `mask_token`, 10 % become another patch's embedding, and 10 % stay as they
    are. The paper does not say whose embedding; here it is another patch of the same image,
    so that no image depends on the others of its batch.

    Args:
        num_corrupted: int, number of corrupted patches of each image.

    Call arguments:
        patches: (batch, patches, hidden_dim).
        noise: float32 in [0, 1), (batch, patches, 3). The patches whose first number is
            least are corrupted. The second number decides how: `mask_token` below 0.8,
            another patch below 0.9. The third decides which other patch.

    Returns:
        The embeddings (batch, patches, hidden_dim), and int32 (batch, num_corrupted), the
        places of the corrupted patches.
    """

    def __init__(self, num_corrupted: int, **kwargs):
        # Without `autocast`, which would round the noise to half precision.
        super().__init__(autocast=False, **kwargs)
        self.num_corrupted = arguments.positive(num_corrupted, "num_corrupted")

    def build(self, patches_shape: Shape, noise_shape: Shape | None = None) -> None:
        draw = initializer(keras.initializers.RandomNormal(stddev=0.02))
        self.mask_token = self.add_weight(
            name="mask_token", shape=(1, patches_shape[-1]), initializer=draw
        )

    def call(self, patches: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        number = patches.shape[1]
        order = ops.argsort(noise[..., 0], axis=1)  # (batch, patches)
        is_corrupted = ops.argsort(order, axis=1) < self.num_corrupted
        is_masked = is_corrupted & (noise[..., 1] < _MASKED)
        is_replaced = is_corrupted & ~is_masked & (noise[..., 1] < _MASKED + _REPLACED)
        # From 1 to the number of patches less 1, so that no patch is its own other.
        steps = 1 + ops.cast(noise[..., 2] * (number - 1), "int32")
        others = (ops.arange(number, dtype="int32") + steps) % number
        others = kernels.take_tokens(patches, others)
        corrupted = ops.where(is_replaced[..., None], others, patches)
        mask_token = ops.cast(self.mask_token, patches.dtype)
        corrupted = ops.where(is_masked[..., None], mask_token, corrupted)
        return corrupted, ops.cast(order[:, : self.num_corrupted], "int32")

    def compute_output_shape(
        self, patches_shape: Shape, noise_shape: Shape | None = None
    ) -> tuple[Shape, Shape]:
        return tuple(patches_shape), (patches_shape[0], self.num_corrupted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_corrupted": self.num_corrupted}
