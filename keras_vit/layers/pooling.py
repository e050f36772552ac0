"""Poolings: from the tokens of an image to one vector."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import kernels, observation
from keras_vit.layers.attention import SelfAttention
from keras_vit.layers.dense import EinsumDense
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.layers.mlp import ACTIVATIONS, MLP
from keras_vit.layers.normalization import LayerNormalization
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenPooling(keras.layers.Layer):
    """Takes one token, the first (the class token) by default.

    Source: ViT (arXiv 2010.11929), section 3.1, equation 4.

    Args:
        index: int, number of the token, from 0.

    Call arguments:
        tokens: (batch, tokens, hidden_dim).
        sizes: not read; the other poolings weigh tokens by it.

    Returns:
        (batch, hidden_dim).
    """

    def __init__(self, *, index: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def build(self, tokens_shape: Shape) -> None:
        pass

    def call(self, tokens: Tensor, sizes: Tensor | None = None) -> Tensor:
        return tokens[:, self.index]  # (batch, hidden_dim)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (tokens_shape[0], tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "index": self.index}


@keras.saving.register_keras_serializable(package="keras_vit")
class MeanPooling(keras.layers.Layer):
    """Averages the patch tokens.

    Source: ViT (arXiv 2010.11929), appendix D.3.

    Args:
        num_prefix: int, number of tokens before the patches (class token, registers),
            which are left out; 0 takes them into the mean.

    Call arguments:
        tokens: (batch, tokens, hidden_dim).
        sizes: int32 (batch, tokens), how many patches each token stands for, see
            `layers.merging`: its weight in the mean; `None` where each stands for one.

    Returns:
        (batch, hidden_dim).
    """

    def __init__(self, *, num_prefix: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix = num_prefix

    def build(self, tokens_shape: Shape) -> None:
        pass

    def call(self, tokens: Tensor, sizes: Tensor | None = None) -> Tensor:
        # In float32: a sum over hundreds of tokens loses digits in half precision.
        patches = ops.cast(tokens[:, self.num_prefix :], "float32")
        if sizes is None:
            return ops.cast(ops.mean(patches, axis=1), self.compute_dtype)
        shares = ops.cast(sizes[:, self.num_prefix :], "float32")  # (batch, patches)
        shares = shares / ops.sum(shares, axis=1, keepdims=True)
        mean = ops.sum(patches * shares[..., None], axis=1)  # (batch, hidden_dim)
        return ops.cast(mean, self.compute_dtype)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (tokens_shape[0], tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_prefix": self.num_prefix}


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenMeanPooling(MeanPooling):
    """Joins the first token, the class token, and the mean of the patch tokens.

    Source: DINOv2 (arXiv 2304.07193), appendix B.3, linear probing.

    Args:
        num_prefix: int, number of tokens before the patches (class token, registers),
            which the mean leaves out.

    Call arguments: see `MeanPooling`.

    Returns:
        (batch, 2 * hidden_dim), the class token before the mean.
    """

    def call(self, tokens: Tensor, sizes: Tensor | None = None) -> Tensor:
        mean = super().call(tokens, sizes)  # (batch, hidden_dim)
        return ops.concatenate([tokens[:, 0], mean], axis=-1)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (tokens_shape[0], 2 * tokens_shape[-1])


@keras.saving.register_keras_serializable(package="keras_vit")
class AttentionPooling(ValuesByNumPy, Composite, keras.layers.Layer):
    """Lets a learned probe attend to the patch tokens, then applies an MLP block.

    Source: *Scaling Vision Transformers* (arXiv 2106.04560), section 3.5 (MAP head).

    Args:
        num_heads: int, a divisor of the tokens' width.
        num_prefix: int, number of tokens before the patches (class token, registers),
            which are left out, as in timm; 0 lets the probe attend to them, too.
        mlp_dim: int, width of the MLP's hidden layer; `None` for four times the
            tokens' width.
        activation: str, see `MLP`.
        gelu_approximate: bool, see `MLP`.
        layer_norm_epsilon: float, added to the variance in the layer norm.

    Call arguments:
        tokens: (batch, tokens, hidden_dim).
        sizes: int32 (batch, tokens), how many patches each token stands for, see
            `SelfAttention`; `None` where each stands for one.

    Returns:
        (batch, hidden_dim).
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_prefix: int = 0,
        mlp_dim: int | None = None,
        activation: str = "gelu",
        gelu_approximate: bool = True,
        layer_norm_epsilon: float = 1e-6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = arguments.positive(num_heads, "num_heads")
        self.num_prefix = num_prefix
        self.mlp_dim = mlp_dim
        self.activation = arguments.one_of(activation, ACTIVATIONS, "activation")
        self.gelu_approximate = gelu_approximate
        self.layer_norm_epsilon = layer_norm_epsilon

    def build(self, tokens_shape: Shape) -> None:
        hidden_dim = tokens_shape[-1]
        policy = self.dtype_policy
        self.probe = self.add_weight(
            name="probe", shape=(1, hidden_dim), initializer=initializer("glorot_uniform")
        )
        self.attention = SelfAttention(self.num_heads, dtype=policy, name="attention")
        self.mlp_norm = LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=policy, name="mlp_norm"
        )
        self.mlp = MLP(
            self.mlp_dim or 4 * hidden_dim,
            activation=self.activation,
            gelu_approximate=self.gelu_approximate,
            dtype=policy,
            name="mlp",
        )
        for layer in (self.attention, self.mlp_norm, self.mlp):
            layer.build((None, None, hidden_dim))

    def call(self, tokens: Tensor, sizes: Tensor | None = None) -> Tensor:
        probe = ops.expand_dims(self.probe, 0)  # (1, 1, hidden_dim)
        probe = ops.broadcast_to(probe, (ops.shape(tokens)[0], *probe.shape[1:]))
        if sizes is not None:
            sizes = sizes[:, self.num_prefix :]
        patches = tokens[:, self.num_prefix :]
        pooled = self.attention(probe, context=patches, sizes=sizes)
        pooled = pooled + self.mlp(self.mlp_norm(pooled))  # (batch, 1, hidden_dim)
        return pooled[:, 0]

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (tokens_shape[0], tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_prefix": self.num_prefix,
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "gelu_approximate": self.gelu_approximate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class QueryPooling(ValuesByNumPy, Composite, keras.layers.Layer):
    """Lets a learned probe attend to the patch tokens, itself the query of each head.

    Source: *Multimodal Autoregressive Pre-training of Large Vision Encoders* (AIMv2,
    arXiv 2411.14402), after CaiT (arXiv 2103.17239), section 3. Unlike `AttentionPooling`
    it does not project the probe, and no MLP follows.

    Args:
        num_heads: int, a divisor of the tokens' width.
        num_prefix: int, number of tokens before the patches (class token, registers),
            which are left out; 0 lets the probe attend to them, too.
        use_bias: bool, whether keys and values have a bias.

    Call arguments:
        tokens: (batch, tokens, hidden_dim).
        sizes: int32 (batch, tokens), how many patches each token stands for, see
            `SelfAttention`; `None` where each stands for one.

    Returns:
        (batch, hidden_dim).

    Raises:
        ValueError: if the tokens' width is not divisible by `num_heads`.
    """

    def __init__(
        self, num_heads: int, *, num_prefix: int = 0, use_bias: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_heads = arguments.positive(num_heads, "num_heads")
        self.num_prefix = num_prefix
        self.use_bias = use_bias

    def build(self, tokens_shape: Shape) -> None:
        hidden_dim = tokens_shape[-1]
        head_dim = arguments.head_dim(hidden_dim, self.num_heads)
        draw = initializer(keras.initializers.RandomNormal(stddev=0.02))
        self.probe = self.add_weight(name="probe", shape=(1, hidden_dim), initializer=draw)
        # Glorot uniform for each of the three square projections, as in `SelfAttention`.
        limit = (6 / (2 * hidden_dim)) ** 0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.key_value = EinsumDense(
            "btd,dshk->btshk",
            output_shape=(None, 2, self.num_heads, head_dim),
            bias_axes="shk" if self.use_bias else None,
            kernel_initializer=initializer(uniform),
            dtype=self.dtype_policy,
            name="key_value",
        )
        self.key_value.build((None, None, hidden_dim))
        self.projection = EinsumDense(
            "bthk,hkd->btd",
            output_shape=(None, hidden_dim),
            bias_axes="d",
            kernel_initializer=initializer(uniform),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build((None, None, self.num_heads, head_dim))

    def call(self, tokens: Tensor, sizes: Tensor | None = None) -> Tensor:
        patches = tokens[:, self.num_prefix :]
        # (batch, heads, patches, head_dim) each
        key, value = kernels.split_heads(self.key_value(patches), 2)
        query = ops.reshape(self.probe, (1, self.num_heads, 1, -1))
        query = ops.broadcast_to(query, (ops.shape(tokens)[0], *query.shape[1:]))
        bias = None
        if sizes is not None:
            bias = ops.log(ops.cast(sizes[:, self.num_prefix :], "float32"))
            bias = bias[:, None, None]  # (batch, 1, 1, patches)
        # (batch, 1, heads, head_dim)
        attended = observation.attend(query, key, value, bias=bias)
        return self.projection(attended)[:, 0]

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (tokens_shape[0], tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_prefix": self.num_prefix,
            "use_bias": self.use_bias,
        }
