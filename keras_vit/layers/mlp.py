"""The position-wise network of an encoder block."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import kernels
from keras_vit.layers.dense import Dense
from keras_vit.layers.initial_values import initializer
from keras_vit.layers.normalization import NORMS
from keras_vit.layers.regularization import drop
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor

GATED = ("swiglu", "geglu")
ACTIVATIONS = ("gelu", "quick_gelu", *GATED)


@keras.saving.register_keras_serializable(package="keras_vit")
class MLP(Composite, keras.layers.Layer):
    """Two dense layers with an activation between them, applied to each token.

    Source: ViT (arXiv 2010.11929), section 3.1; SwiGLU and GEGLU are those of *GLU
    Variants Improve Transformer* (arXiv 2002.05202), with the packed weights of DINOv2
    (arXiv 2304.07193).

    Args:
        mlp_dim: int, width of the hidden layer, the input of `dense_2`.
        activation: `"gelu"`, `"quick_gelu"` (`x * sigmoid(1.702 * x)`, OpenAI's CLIP)
            or one with a gate: `dense_1` has `2 * mlp_dim` outputs, and `dense_2` reads
            `silu(first half) * second half` (`"swiglu"`) or `gelu(first half) * second
            half` (`"geglu"`).
        gelu_approximate: bool, whether GELU is its tanh approximation (the original code)
            or exact (timm, transformers).
        sub_norm: bool, whether the hidden layer passes a layer norm `sub_norm` before
            `dense_2` (sub-LN, *Foundation Transformers*, arXiv 2210.06423; EVA-02, arXiv
            2303.11331).
        norm: `"layer"` or `"rms"`, the kind of that norm.
        layer_norm_epsilon: float, added to the variance in that norm.
        use_bias: bool, whether the dense layers have a bias.
        dropout_rate: float in [0, 1), dropout after each dense layer.

    Input shape:
        (..., hidden_dim).

    Output shape:
        (..., hidden_dim).
    """

    def __init__(
        self,
        mlp_dim: int,
        *,
        activation: str = "gelu",
        gelu_approximate: bool = True,
        sub_norm: bool = False,
        norm: str = "layer",
        layer_norm_epsilon: float = 1e-6,
        use_bias: bool = True,
        dropout_rate: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mlp_dim = arguments.positive(mlp_dim, "mlp_dim")
        self.activation = arguments.one_of(activation, ACTIVATIONS, "activation")
        self.gelu_approximate = gelu_approximate
        self.sub_norm = sub_norm
        self.norm = arguments.one_of(norm, tuple(NORMS), "norm")
        self.layer_norm_epsilon = layer_norm_epsilon
        self.use_bias = use_bias
        self.dropout_rate = arguments.rate(dropout_rate, "dropout_rate")
        self.dropout = keras.layers.Dropout(
            self.dropout_rate, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, tokens_shape: Shape) -> None:
        hidden_dim = tokens_shape[-1]
        halves = 2 if self.activation in GATED else 1
        self.dense_1 = self._dense(halves * self.mlp_dim, "dense_1")
        self.dense_1.build((None, None, hidden_dim))
        self.dense_2 = self._dense(hidden_dim, "dense_2")
        self.dense_2.build((None, None, self.mlp_dim))
        if self.sub_norm:
            self.hidden_norm = NORMS[self.norm](
                epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name="sub_norm"
            )
            self.hidden_norm.build((None, None, self.mlp_dim))

    def _dense(self, units, name):
        # Initialized as in the original code: Glorot uniform, biases N(0, 1e-6).
        return Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=initializer("glorot_uniform"),
            bias_initializer=initializer(keras.initializers.RandomNormal(stddev=1e-6)),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, tokens: Tensor, training: bool | None = None) -> Tensor:
        def network(tokens):
            hidden = drop(self.dropout, self._hidden(tokens, training), training)
            if self.sub_norm:
                hidden = self.hidden_norm(hidden)
            return drop(self.dropout, self.dense_2(hidden), training)

        return kernels.apply_token_wise(network, tokens)

    def _hidden(self, tokens, training):
        """The activated hidden layer, (..., mlp_dim)."""
        gelu = {"approximate": self.gelu_approximate, "training": training}
        if self.activation == "gelu":
            if kernels.fuses_gelu() and self.dense_1.quantization_mode is None:
                return self.dense_1(tokens, gelu_approximate=self.gelu_approximate)
            return kernels.gelu(self.dense_1(tokens), **gelu)
        hidden = self.dense_1(tokens)
        if self.activation == "quick_gelu":
            return hidden * ops.sigmoid(1.702 * hidden)
        gate, value = ops.split(hidden, 2, axis=-1)  # (..., mlp_dim) each
        gate = ops.silu(gate) if self.activation == "swiglu" else kernels.gelu(gate, **gelu)
        return gate * value

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return tuple(tokens_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "gelu_approximate": self.gelu_approximate,
            "sub_norm": self.sub_norm,
            "norm": self.norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "use_bias": self.use_bias,
            "dropout_rate": self.dropout_rate,
        }
