"""Layer norm whose backward pass is written out."""

import keras
from keras import ops

from keras_vit.layers.initial import ValuesByNumPy


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerNormalization(ValuesByNumPy, keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization`, but on torch with a gradient of its own.

    The values are Keras'. The gradient that JAX derives from them is cheap to compute
    once more, so that XLA's CPU compiler (JAX 0.10) makes no array of it, but computes
    it wherever the gradient of the residual stream is read: and that is the sum of
    those of all norms above. The backward pass of n blocks then computes about n² of
    them (benchmarks/RESULTS.md). The means over the last axis of the gradient that is
    written out here end what XLA would join. TensorFlow does not join it, but takes
    more steps for the gradient that it derives. torch has a kernel.

    On JAX, derivatives of the gradient can be taken, forward-mode ones (`jax.jvp`) not.

    Args:
        epsilon: float, added to the variance.

    Input shape:
        (..., width).

    Output shape:
        Same as the input's.
    """

    def __init__(self, *, epsilon: float = 1e-6, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, inputs):
        if keras.backend.backend() == "torch" or not self._is_usual:
            return super().call(inputs)
        return self._normalize(inputs)

    @property
    def _is_usual(self):
        return self.scale and self.center and list(self.axis) == [-1]

    def _normalize(self, inputs):
        @ops.custom_gradient
        def normalize(inputs, gamma, beta):
            # At least in float32, also where the inputs are halves.
            wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
            mean = ops.mean(wide, axis=-1, keepdims=True)
            variance = ops.mean(ops.square(wide - mean), axis=-1, keepdims=True)
            inverse = ops.rsqrt(variance + self.epsilon)
            outputs = (wide - mean) * inverse * gamma + beta

            def gradient(*args, upstream=None):
                (upstream,) = args if upstream is None else (upstream,)
                upstream = ops.cast(upstream, wide.dtype)
                normal = (ops.cast(inputs, wide.dtype) - mean) * inverse
                scaled = upstream * gamma
                along = ops.mean(scaled * normal, axis=-1, keepdims=True)
                across = ops.mean(scaled, axis=-1, keepdims=True)
                rest = tuple(range(len(inputs.shape) - 1))
                return (
                    ops.cast(inverse * (scaled - across - normal * along), inputs.dtype),
                    ops.cast(ops.sum(upstream * normal, axis=rest), gamma.dtype),
                    ops.cast(ops.sum(upstream, axis=rest), beta.dtype),
                )

            return ops.cast(outputs, self.compute_dtype), gradient

        weights = (ops.convert_to_tensor(w.value) for w in (self.gamma, self.beta))
        return normalize(inputs, *weights)
