"""Layer norm whose backward pass is written out, and group norm of fewer passes."""

import functools

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
        # At least in float32, also where the weights are halves.
        wide = keras.backend.result_type(self.compute_dtype, "float32")
        gamma, beta = (ops.cast(w, wide) for w in (self.gamma, self.beta))
        is_jax = keras.backend.backend() == "jax"
        normalize = _with_tangents() if is_jax else _with_gradient
        outputs = normalize(inputs, gamma, beta, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    @property
    def _is_usual(self):
        return self.scale and self.center and list(self.axis) == [-1]


def _mean_and_inverse(wide, epsilon):
    """The mean over the last axis, and the inverse of the deviation."""
    mean = ops.mean(wide, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(wide - mean), axis=-1, keepdims=True)
    return mean, ops.rsqrt(variance + epsilon)


def _less_what_is_normal(values, normal):
    """The part of a derivative that a normalization lets pass; its own transpose."""
    along = ops.mean(values * normal, axis=-1, keepdims=True)
    return values - ops.mean(values, axis=-1, keepdims=True) - normal * along


def _with_gradient(inputs, gamma, beta, epsilon):
    """TensorFlow's function with a gradient of its own, which keeps no wide array."""

    @ops.custom_gradient
    def normalize(inputs, gamma, beta):
        wide = ops.cast(inputs, gamma.dtype)
        mean, inverse = _mean_and_inverse(wide, epsilon)
        outputs = (wide - mean) * inverse * gamma + beta

        def gradient(upstream):
            normal = (ops.cast(inputs, gamma.dtype) - mean) * inverse
            rest = tuple(range(len(inputs.shape) - 1))
            of_inputs = inverse * _less_what_is_normal(upstream * gamma, normal)
            return (
                ops.cast(of_inputs, inputs.dtype),
                ops.sum(upstream * normal, axis=rest),
                ops.sum(upstream, axis=rest),
            )

        return outputs, gradient

    return normalize(inputs, gamma, beta)


@functools.cache
def _with_tangents():
    """JAX's function with a derivative of its own, of which JAX makes the gradient."""
    import jax

    @functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
    def normalize(inputs, gamma, beta, epsilon):
        wide = ops.cast(inputs, gamma.dtype)
        mean, inverse = _mean_and_inverse(wide, epsilon)
        return (wide - mean) * inverse * gamma + beta

    @normalize.defjvp
    def derivative(epsilon, values, tangents):
        inputs, gamma, beta = values
        of_inputs, of_gamma, of_beta = tangents
        wide = ops.cast(inputs, gamma.dtype)
        mean, inverse = _mean_and_inverse(wide, epsilon)
        normal = (wide - mean) * inverse
        of_inputs = ops.cast(of_inputs, gamma.dtype)
        of_normal = inverse * _less_what_is_normal(of_inputs, normal)
        return normal * gamma + beta, of_normal * gamma + normal * of_gamma + of_beta

    return normalize


@keras.saving.register_keras_serializable(package="keras_vit")
class GroupNormalization(ValuesByNumPy, keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization` of images, by torch's kernel or fewer passes.

    Source: *Group Normalization* (arXiv 1803.08494), section 3.1.

    Keras reduces an array of five axes, of which the last but one stays, which takes
    JAX and TensorFlow 1.3 to 12 times as long as the sums of each channel, of which the
    groups' are then made (benchmarks/RESULTS.md). The variance is that of the centred
    values: as the mean of squares less the mean's square, as Keras has it, it loses
    digits. Inputs that are no images go Keras' way, as does another `axis`.

    Args:
        groups: int, a divisor of the number of channels.
        epsilon: float, added to the variance.

    Input shape:
        (batch, height, width, channels). Height and width may be `None`.

    Output shape:
        Same as the input's.
    """

    def __init__(self, groups: int = 32, *, epsilon: float = 1e-6, **kwargs):
        super().__init__(groups, epsilon=epsilon, **kwargs)

    def call(self, inputs):
        if not self._is_usual(inputs):
            return super().call(inputs)
        # At least in float32, also where the inputs are halves.
        wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        gamma, beta = (ops.cast(w, wide.dtype) for w in (self.gamma, self.beta))
        normalize = _by_torch if _torch_can(wide, gamma, beta) else _by_channels
        outputs = normalize(wide, gamma, beta, self.groups, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def _is_usual(self, inputs):
        of_channels = self.axis in (-1, len(inputs.shape) - 1)
        return self.scale and self.center and of_channels and len(inputs.shape) == 4


def _torch_can(images, *weights):
    """Whether torch is there, and its kernel has the gradients that are wanted.

    Where the weights' are and the images' is not, as after frozen layers, it writes the
    latter to where nothing is and ends the process (torch 2.13 on a CPU, channels last).
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    if torch._C._are_functorch_transforms_active():  # as `torch.func.jvp`
        return False
    of_weights = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
    return images.requires_grad or not of_weights


def _by_torch(images, gamma, beta, groups, epsilon):
    import torch

    if images.device.type == "cpu":
        # There the kernel sums squares, and loses digits of what is not centred: 1e-4 of
        # values whose mean is three times their deviation. A shift has no gradient.
        with torch.no_grad():
            shift = _means(images, groups)
        images = images - shift
    # Of a view: the kernel knows channels that lie side by side.
    channels_first = images.permute(0, 3, 1, 2)
    outputs = torch.nn.functional.group_norm(channels_first, groups, gamma, beta, epsilon)
    return outputs.permute(0, 2, 3, 1)


def _by_channels(images, gamma, beta, groups, epsilon):
    centred = images - _means(images, groups)
    variance = _means(ops.square(centred), groups)
    return centred * (ops.rsqrt(variance + epsilon) * gamma) + beta


def _means(images, groups):
    """Over pixels and the channels of a group, for each channel of it."""
    channels = images.shape[-1]
    size = channels // groups
    means = ops.mean(images, axis=(1, 2))
    means = ops.mean(ops.reshape(means, (-1, groups, size)), axis=-1, keepdims=True)
    means = ops.broadcast_to(means, (ops.shape(means)[0], groups, size))
    return ops.reshape(means, (-1, 1, 1, channels))
