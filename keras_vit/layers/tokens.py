"""Learned tokens before the patch tokens: class token and registers."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import initial_values
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class Registers(initial_values.ValuesByNumPy, keras.layers.Layer):
    """Learned tokens, the same for every example, without a position of their own.

    Source: *Vision Transformers Need Registers* (arXiv 2309.16588), section 2.2.

    Args:
        num_registers: int, number of tokens.
        initializer: initializer of the tokens, `None` for normal with a standard
            deviation of 0.02. Registers that start equal stay equal, so zeros are of no
            use.

    Input shape:
        (batch, ..., hidden_dim): only the batch and the width are read.

    Output shape:
        (batch, num_registers, hidden_dim).
    """

    def __init__(self, num_registers: int, *, initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.num_registers = arguments.positive(num_registers, "num_registers")
        self.initializer = keras.initializers.get(
            initializer or keras.initializers.RandomNormal(stddev=0.02)
        )

    def build(self, inputs_shape: Shape) -> None:
        self.tokens = self.add_weight(
            name="tokens",
            shape=(self.num_registers, inputs_shape[-1]),
            initializer=initial_values.initializer(self.initializer),
        )

    def call(self, inputs: Tensor) -> Tensor:
        tokens = ops.expand_dims(self.tokens, 0)  # (1, num_registers, hidden_dim)
        return ops.broadcast_to(tokens, (ops.shape(inputs)[0], *tokens.shape[1:]))

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return (inputs_shape[0], self.num_registers, inputs_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_registers": self.num_registers,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class ClassToken(Registers):
    """The learned token whose final state represents the image.

    Source: ViT (arXiv 2010.11929), section 3.1, equation 1; zero at the start, as
    in the original code.

    Args:
        initializer: initializer of the token.

    Input shape:
        (batch, ..., hidden_dim): only the batch and the width are read.

    Output shape:
        (batch, 1, hidden_dim).
    """

    def __init__(self, *, initializer="zeros", **kwargs):
        super().__init__(num_registers=1, initializer=initializer, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["num_registers"]
        return config
