"""The position-wise network of an encoder block."""

import keras
from keras import ops

from keras_vit.layers import arguments


@keras.saving.register_keras_serializable(package="keras_vit")
class MLP(keras.layers.Layer):
    """Two dense layers with a GELU between them, applied to each token.

    Source: ViT (arXiv 2010.11929), section 3.1.

    Args:
        mlp_dim: int, width of the hidden layer.
        gelu_approximate: bool, the tanh approximation of GELU (the original code) or
            the exact function (timm, transformers).
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
        gelu_approximate: bool = True,
        dropout_rate: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mlp_dim = arguments.positive(mlp_dim, "mlp_dim")
        self.gelu_approximate = gelu_approximate
        self.dropout_rate = arguments.rate(dropout_rate, "dropout_rate")
        self.dropout = keras.layers.Dropout(
            self.dropout_rate, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, tokens_shape):
        hidden_dim = tokens_shape[-1]
        self.dense_1 = self._dense(self.mlp_dim, "dense_1")
        self.dense_1.build((None, None, hidden_dim))
        self.dense_2 = self._dense(hidden_dim, "dense_2")
        self.dense_2.build((None, None, self.mlp_dim))

    def _dense(self, units, name):
        # Initialized as in the original code: Glorot uniform, biases N(0, 1e-6).
        return keras.layers.Dense(
            units,
            bias_initializer=keras.initializers.RandomNormal(stddev=1e-6),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, tokens, training=None):
        hidden = ops.gelu(self.dense_1(tokens), approximate=self.gelu_approximate)
        hidden = self.dropout(hidden, training=training)
        return self.dropout(self.dense_2(hidden), training=training)

    def compute_output_shape(self, tokens_shape):
        return tuple(tokens_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "gelu_approximate": self.gelu_approximate,
            "dropout_rate": self.dropout_rate,
        }
