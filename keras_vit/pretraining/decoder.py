"""The decoder of a masked autoencoder."""

import math
from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import EncoderBlock, LayerNormalization, PositionEmbedding, kernels
from keras_vit.layers.dense import Dense
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.layers.sincos import sincos2d
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class FixedPositions(PositionEmbedding):
    """Sine-cosine positions as weights that are never trained, as MAE's files store them.

    Source: MAE (arXiv 2111.06377), appendix A.1, and its code, whose frequencies are those
    of `layers.sincos.sincos2d` without the endpoint. The positions of the tokens before
    the patches are zero.

    Args: see `PositionEmbedding`.
    """

    def _add_positions(self, name, shape):
        def values(shape, dtype=None):
            if name == "prefix":
                return ops.zeros(shape, dtype)
            grid = sincos2d(*shape, endpoint=False).astype("float32")
            return ops.convert_to_tensor(grid, dtype)

        draw = initializer(values)
        return self.add_weight(name=name, shape=shape, initializer=draw, trainable=False)


@keras.saving.register_keras_serializable(package="keras_vit")
class MaskedDecoder(ValuesByNumPy, Composite, keras.layers.Layer):
    """Reconstructs every patch of an image from the tokens of the kept ones.

    Source: MAE (arXiv 2111.06377), section 3, *MAE decoder*: the tokens are projected by
    `embedding` to the decoder's width; a learned `mask_token` takes the place of each
    removed patch; all get positions and pass the blocks and `norm`; `prediction` gives
    the pixels.

    Args:
        hidden_dim: int, width of the decoder's tokens, divisible by 4.
        num_layers: int, number of blocks.
        num_heads: int, attention heads of each block, a divisor of `hidden_dim`.
        mlp_dim: int, width of the MLPs' hidden layers.
        grid_size: (rows, columns) of the patches.
        num_pixels: int, numbers to predict for each patch.
        num_prefix: int, number of tokens before the patches, which pass the blocks, too.
        qkv_bias: bool or `"qv"`, see `layers.SelfAttention`.
        gelu_approximate: bool, see `layers.MLP`.
        layer_norm_epsilon: float, added to the variance in the layer norms.
        interpolation: how the positions are resized, see `layers.PositionEmbedding`.
        rematerialize: bool, see `layers.EncoderBlock`.

    Call arguments:
        tokens: (batch, num_prefix + kept patches, width), of the encoder.
        places: int (batch, patches), for each patch its place among the kept ones, then
            the removed ones.

    Returns:
        float32 (batch, patches, num_pixels).
    """

    def __init__(
        self,
        hidden_dim: int,
        num_layers: int,
        num_heads: int,
        mlp_dim: int,
        *,
        grid_size: tuple[int, int],
        num_pixels: int,
        num_prefix: int = 1,
        qkv_bias: bool | str = True,
        gelu_approximate: bool = True,
        layer_norm_epsilon: float = 1e-6,
        interpolation: str = "bicubic",
        rematerialize: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = arguments.positive(hidden_dim, "hidden_dim")
        self.num_layers = arguments.positive(num_layers, "num_layers")
        self.num_heads = arguments.positive(num_heads, "num_heads")
        self.mlp_dim = arguments.positive(mlp_dim, "mlp_dim")
        self.grid_size = arguments.pair(grid_size, "grid_size")
        self.num_pixels = arguments.positive(num_pixels, "num_pixels")
        self.num_prefix = num_prefix
        self.qkv_bias = qkv_bias
        self.gelu_approximate = gelu_approximate
        self.layer_norm_epsilon = layer_norm_epsilon
        self.interpolation = interpolation
        self.rematerialize = rematerialize

        if hidden_dim % 4:
            raise ValueError(
                "The decoder's width must be divisible by 4 (sine and cosine of two axes). "
                f"Received: hidden_dim={hidden_dim}"
            )

        policy = self.dtype_policy
        self.embedding = Dense(
            hidden_dim,
            kernel_initializer=initializer("glorot_uniform"),
            dtype=policy,
            name="embedding",
        )
        self.position_embedding = FixedPositions(
            grid_size=self.grid_size,
            num_prefix=num_prefix,
            interpolation=interpolation,
            dtype=policy,
            name="position_embedding",
        )
        self.blocks = [
            EncoderBlock(
                num_heads,
                mlp_dim,
                qkv_bias=qkv_bias,
                gelu_approximate=gelu_approximate,
                layer_norm_epsilon=layer_norm_epsilon,
                rematerialize=rematerialize,
                dtype=policy,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.norm = LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="norm"
        )
        # In float32 under any policy, as the heads of classifiers.
        self.prediction = Dense(
            num_pixels,
            kernel_initializer=initializer("glorot_uniform"),
            dtype="float32",
            name="prediction",
        )

    def build(self, tokens_shape: Shape) -> None:
        tokens = (None, None, self.hidden_dim)
        draw = initializer(keras.initializers.RandomNormal(stddev=0.02))
        self.mask_token = self.add_weight(
            name="mask_token", shape=(1, self.hidden_dim), initializer=draw
        )
        self.embedding.build((None, None, tokens_shape[-1]))
        grid = (None, *self.grid_size, self.hidden_dim)
        prefix = (None, self.num_prefix, self.hidden_dim) if self.num_prefix else None
        self.position_embedding.build(grid, prefix)
        for block in self.blocks:
            block.build(tokens)
        self.norm.build(tokens)
        self.prediction.build(tokens)

    def call(self, tokens: Tensor, places: Tensor) -> Tensor:
        tokens = self.embedding(tokens)  # (batch, prefix + kept, hidden_dim)
        prefix, kept = tokens[:, : self.num_prefix], tokens[:, self.num_prefix :]
        batch, patches = ops.shape(places)
        missing = patches - kept.shape[1]
        removed = ops.broadcast_to(
            ops.cast(self.mask_token, tokens.dtype)[None], (batch, missing, self.hidden_dim)
        )
        patches = kernels.take_tokens(ops.concatenate([kept, removed], axis=1), places)
        # (batch, patches, hidden_dim)
        patches = ops.reshape(patches, (-1, *self.grid_size, self.hidden_dim))
        prefix = (prefix,) if self.num_prefix else ()
        tokens = self.position_embedding(patches, *prefix)
        for block in self.blocks:
            tokens = block(tokens)
        return self.prediction(self.norm(tokens)[:, self.num_prefix :])

    def compute_output_shape(
        self, tokens_shape: Shape, places_shape: Shape | None = None
    ) -> Shape:
        return (tokens_shape[0], math.prod(self.grid_size), self.num_pixels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "grid_size": self.grid_size,
            "num_pixels": self.num_pixels,
            "num_prefix": self.num_prefix,
            "qkv_bias": self.qkv_bias,
            "gelu_approximate": self.gelu_approximate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "interpolation": self.interpolation,
            "rematerialize": self.rematerialize,
        }
