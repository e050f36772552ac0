"""Position embeddings that are added at the beginning of each layer of the encoder."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers.position import Positions
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerPositions(Positions):
    """Positions of a whole sequence, which encoder blocks add to their inputs.

    Source: ViT (arXiv 2010.11929), appendix D.4: positions are learned and added at the
    beginning of each layer, by weights of its own or by weights that all layers share. The
    weights are those of `PositionEmbedding`, and are resized alike.

    Args:
        position: `"learned"`, `"learned2d"`, `"sincos"` or `"sincos2d"`, see
            `PositionEmbedding`.
        num_tokens: int, number of tokens before the patches (class token, registers).
        grid_size: int or (rows, columns) of the learned grid; `None` takes that of the
            patches the layer is built with.
        num_prefix: int, how many tokens before the patches, from the first, own a learned
            position; the others get none.
        interpolation: see `PositionEmbedding`.

    Call arguments:
        patches: (batch, rows, columns, hidden_dim); only their shape is read.

    Returns:
        (num_tokens + rows * columns, hidden_dim), in the dtype of computation.

    Raises:
        ValueError: if there are no positions, or fewer tokens than own one.
    """

    def __init__(self, position: str = "learned", *, num_tokens: int = 0, **kwargs):
        super().__init__(position, **kwargs)
        self.num_tokens = num_tokens
        if position == "none" or not 0 <= self.num_prefix <= num_tokens:
            raise ValueError(
                "Positions of layers are those of the patches and of at most `num_tokens` "
                f"tokens before them. Received: position={position!r}, num_prefix="
                f"{self.num_prefix}, num_tokens={num_tokens}"
            )

    def build(self, patches_shape: Shape) -> None:
        self.build_positions(patches_shape)

    def call(self, patches: Tensor) -> Tensor:
        return self.of_sequence(*ops.shape(patches)[1:3], patches.shape[-1])

    def of_sequence(
        self, rows: int | Tensor, columns: int | Tensor, hidden_dim: int
    ) -> Tensor:
        """The positions of the tokens for patches in a grid, (tokens, hidden_dim)."""
        grid = self.grid_positions(rows, columns, hidden_dim)
        parts = [ops.reshape(grid, (rows * columns, hidden_dim))]
        if without := self.num_tokens - self.num_prefix:
            parts.insert(0, ops.zeros((without, hidden_dim), grid.dtype))
        if self.num_prefix:
            parts.insert(0, ops.convert_to_tensor(self.prefix))
        return ops.concatenate(parts, axis=0) if len(parts) > 1 else parts[0]

    def compute_output_shape(self, patches_shape: Shape) -> Shape:
        _, rows, columns, hidden_dim = patches_shape
        number = None if None in (rows, columns) else self.num_tokens + rows * columns
        return (number, hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_tokens": self.num_tokens}


def own_positions(
    description: dict[str, Any] | None, num_tokens: int, dtype: keras.DTypePolicy
) -> LayerPositions | None:
    """The layer of a block's own positions, which must know its grid; `None` for none.

    Args:
        description: arguments of `LayerPositions`, without `num_tokens`.
        num_tokens: int, number of tokens before the patches.
        dtype: dtype policy.
    """
    if description is None:
        return None
    layer = LayerPositions(
        **description, num_tokens=num_tokens, dtype=dtype, name="layer_positions"
    )
    arguments.pair(layer.grid_size, "grid_size")
    return layer
