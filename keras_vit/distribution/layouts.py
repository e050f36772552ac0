"""Layouts of the weights: the mesh axis over which each dimension is sharded."""

import math
import re

import keras

from keras_vit.distribution import jax_training
from keras_vit.distribution.jax_distributions import MultiProcessDistribution
from keras_vit.distribution.processes import num_processes
from keras_vit.keras_internals.stateless_scope import (
    in_stateless_scope,
    in_symbolic_scope,
)
from keras_vit.keras_internals.variable_values import layout
from keras_vit.weight_paths import public_path

BATCH, MODEL = "batch", "model"
# Elements from which on a weight must have a layout: 256 KiB in float32. Norms, biases,
# tokens and the heads of small data sets are smaller.
MIN_SIZE = 2**16

# Tensor parallelism, by the end of a weight's path. Layers come in pairs: the first is
# sharded by its outputs, the second by its inputs. One all-reduce per pair then replicates
# the tokens on each device (Megatron-LM, arXiv 1909.08053, section 3). Of the two LoRA
# matrices of a kernel, the one with the sharded dimension is sharded.
_TENSOR_PARALLEL = {
    # (hidden_dim, 3, heads, head_dim) and back: by heads, so that a device has the
    # queries, keys and values of its heads.
    "attention/qkv/kernel": (None, None, MODEL, None),
    "attention/qkv/bias": (None, MODEL, None),
    "attention/query_value_bias": (None, MODEL, None),
    "attention/frequencies": (None, MODEL, None),
    "attention/relative_position/grid": (None, None, MODEL),
    "attention/relative_position/prefix": (None, MODEL),
    "attention/relative_keys/grid": (None, None, MODEL, None),
    "attention/relative_keys/prefix": (None, MODEL, None),
    "attention/qkv/lora_kernel_a": (None, None, MODEL, None),
    "attention/qkv/lora_kernel_b": (None, None),
    "attention/projection/kernel": (MODEL, None, None),
    "attention/projection/lora_kernel_a": (MODEL, None, None),
    "attention/projection/lora_kernel_b": (None, None),
    # Attention pooling whose probe is the query: (hidden_dim, 2, heads, head_dim) and back.
    "pooling/key_value/kernel": (None, None, MODEL, None),
    "pooling/key_value/bias": (None, MODEL, None),
    "pooling/projection/kernel": (MODEL, None, None),
    "mlp/dense_1/kernel": (None, MODEL),
    "mlp/dense_1/bias": (MODEL,),
    "mlp/dense_1/lora_kernel_a": (None, None),
    "mlp/dense_1/lora_kernel_b": (None, MODEL),
    "mlp/dense_2/kernel": (MODEL, None),
    "mlp/dense_2/lora_kernel_a": (MODEL, None),
    "mlp/dense_2/lora_kernel_b": (None, None),
    # The head by its inputs: devices may not divide the number of classes.
    "pre_logits/kernel": (None, MODEL),
    "pre_logits/bias": (MODEL,),
    "(distillation_)?head/kernel": (MODEL, None),
    # Self-distillation: its outputs, of which there are many, are split.
    "(teacher_)?projection_head/dense_1/kernel": (None, MODEL),
    "(teacher_)?projection_head/dense_1/bias": (MODEL,),
    "(teacher_)?projection_head/(dense_2|bottleneck)/kernel": (MODEL, None),
    "(teacher_)?projection_head/last_layer/kernel": (None, MODEL),
    "(teacher_)?projection_head/last_layer/scale": (MODEL,),
    "center": (MODEL,),
    # ResNets: (height, width, inputs, outputs).
    r"(stem_)?stage_\d+_unit_\d+/conv_1/kernel": (None, None, None, MODEL),
    r"(stem_)?stage_\d+_unit_\d+/(conv_2|conv_3|shortcut_conv)/kernel": (
        *(None, None, MODEL, None),
    ),
    # Replicated: 1 % of all weights in B/16, and their outputs would be gathered.
    r"(stem_)?root/conv/kernel": (None, None, None, None),
    "patch_embedding/kernel": (None, None, None, None),
    "(position_embedding|layer_positions)/grid": (None, None, None),
    "(position_embedding|layer_positions)/(rows|columns)": (None, None),
}

# Outputs of layers.
_OUTPUTS = {
    "attention/qkv|pooling/key_value": (BATCH, None, None, MODEL, None),
    "mlp/dense_1": (BATCH, None, MODEL),
    "pre_logits": (BATCH, MODEL),
    r"patch_embedding|position_embedding|encoder_norm|block_\d+|pooling": (BATCH,),
    "(distillation_)?head|distillation_pooling": (BATCH,),
    "attention|attention/projection|mlp|mlp/dense_2|attention_norm|mlp_norm": (BATCH,),
    "pooling/projection": (BATCH,),
    r"(stem_)?root|(stem_)?stage_\d+_unit_\d+": (BATCH,),
}


def tensor_parallel_axes(path: str, shape: tuple[int, ...]) -> tuple | None:
    """The mesh axis of each dimension under tensor parallelism; `None` without a rule.

    Args:
        path: path of the weight, such as `"vit/block_0/attention/qkv/kernel"`.
        shape: shape of the weight.
    """
    for pattern, axes in _TENSOR_PARALLEL.items():
        if len(axes) == len(shape) and re.fullmatch(f"(.*/)?{pattern}", path):
            return axes
    return None


class Layouts(keras.distribution.LayoutMap):
    """A `LayoutMap` whose patterns also match paths without the name of the model."""

    def __getitem__(self, path):
        for spelling in (path, public_path(path)):
            # Keras 3.13 also uses a pattern that matches a part of a path.
            patterns = [spelling] if spelling in list(self) else self._matching(spelling)
            if patterns:
                return super().__getitem__(patterns[0])
        return None

    def _matching(self, path):
        patterns = [pattern for pattern in self if re.fullmatch(pattern, path)]
        if len(patterns) > 1:
            raise ValueError(
                "At most one pattern of `layouts` may match the path of a weight. "
                f"Received: {patterns}, which all match {path!r}. Keep one of them."
            )
        return patterns


class ReplicatedWeights(MultiProcessDistribution, keras.distribution.DataParallel):
    """A `keras.distribution.DataParallel`: each device has all weights.

    Args:
        devices: names of the devices of all processes.
    """

    name = "data_parallel"

    def __init__(self, devices: list[str]):
        super().__init__(devices=devices)
        jax_training.install()


class ShardedWeights(MultiProcessDistribution, keras.distribution.ModelParallel):
    """A `keras.distribution.ModelParallel` that finds the layout of each weight itself.

    A weight gets its layout from its path and shape when it is created; the optimizer's
    slots get the same. Keras' own `LayoutMap` silently replicates a weight that no key
    matches; here that is an error from 65,536 elements on.

    Args:
        device_mesh: `keras.distribution.DeviceMesh` with the axis `"batch"`, and with
            `"model"` for tensor parallelism.
        shard_batch_axis: bool, whether large weights are also sharded over `"batch"`,
            along the longest dimension that divides and is not sharded over `"model"`. A
            weight sharded over `"model"` without such a dimension stays as it is.
        layouts: layouts of other layers' weights, or instead of the rules: a dictionary
            from regular expressions to tuples with an axis or None per dimension. An
            expression matches the whole path, as in `keras.distribution.LayoutMap`, or
            the path from a layer of this package on (`"head/kernel"`).

    Raises:
        ValueError: in several processes under Keras 3.14; in building a model, if a large
            weight has no layout, or an axis does not divide a dimension.
    """

    def __init__(self, device_mesh, *, shard_batch_axis: bool = False, layouts=None):
        if num_processes() > 1 and keras.__version__.startswith("3.14."):
            raise ValueError(
                "Weights are sharded over several processes of JAX from Keras 3.15 on. "
                f"Received: Keras {keras.__version__} in {num_processes()} processes. "
                "Run `pip install 'keras>=3.15,<3.16'`, or use `data_parallel`."
            )
        self.layouts = Layouts(device_mesh)
        for pattern, axes in (layouts or {}).items():
            self.layouts[pattern] = tuple(axes)
        super().__init__(layout_map=self.layouts, batch_dim_name=BATCH)
        jax_training.install()
        self.shard_batch_axis = shard_batch_axis
        self.axis_sizes = dict(zip(device_mesh.axis_names, device_mesh.shape, strict=True))

    @property
    def name(self) -> str:
        """`"fully_sharded"` or `"tensor_parallel"`."""
        return "fully_sharded" if self.shard_batch_axis else "tensor_parallel"

    def get_variable_layout(
        self, variable: keras.Variable
    ) -> keras.distribution.TensorLayout:
        """The `TensorLayout` of a variable, see the class."""
        # A layout that an optimizer or the user has set comes first.
        given = layout(variable)
        if given is not None:
            return given
        axes = self.axes(variable.path, tuple(variable.shape))
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def get_tensor_layout(self, path: str) -> keras.distribution.TensorLayout | None:
        """The `TensorLayout` of a layer's output, by `"path/output"`.

        Without it, XLA may reshard the images in place of weights that are sharded over
        the batch axis, and shard the tokens of every block for a head that is sharded by
        its inputs, only to gather them for each projection.
        """
        given = super().get_tensor_layout(path)
        if given is not None or not _in_step():
            return given
        for pattern, axes in _OUTPUTS.items():
            if re.fullmatch(f"(.*/)?({pattern})/output", path):
                axes = [axis if axis in self.axis_sizes else None for axis in axes]
                return keras.distribution.TensorLayout(axes, self.device_mesh)
        return None

    def axes(self, path: str, shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """The mesh axis, or None, of each dimension of a weight.

        Args:
            path: path of the weight.
            shape: shape of the weight.

        Raises:
            ValueError: if it is large and has no rule, or an axis does not divide it.
        """
        given = self.layouts[path]
        if given is not None:
            self._check_given(path, shape, given.axes)
            return given.axes
        axes = (None,) * len(shape)
        if MODEL in self.axis_sizes:
            ruled = tensor_parallel_axes(path, shape)
            if ruled is None and math.prod(shape) >= MIN_SIZE:
                raise ValueError(
                    "Tensor parallelism needs a layout for each weight of "
                    f"{MIN_SIZE:,} elements or more. Received: {path!r} of shape {shape}, "
                    f"which has no rule. Shard it, {_example(path, shape, MODEL)}, or "
                    "replicate it with None for each dimension."
                )
            axes = ruled or axes
            self._check_division(path, shape, axes)
        if self.shard_batch_axis and math.prod(shape) >= MIN_SIZE:
            axes = self._split_over_batch(path, shape, axes)
        return axes

    def _split_over_batch(self, path, shape, axes):
        size = self.axis_sizes[BATCH]
        free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % size == 0]
        if not free and MODEL in axes:
            return axes  # such as the head of 1,000 classes on 16 devices
        if not free:
            raise ValueError(
                f"The weight {path!r} of shape {shape} has no dimension that the {size} "
                f"devices of the axis {BATCH!r} divide. Use another number of devices, "
                f"or replicate it: layouts={{{public_path(path)!r}: "
                f"{(None,) * len(shape)}}}."
            )
        longest = max(free, key=lambda i: (shape[i], i))
        return (*axes[:longest], BATCH, *axes[longest + 1 :])

    def _check_given(self, path, shape, axes):
        if len(axes) != len(shape):
            raise ValueError(
                "A layout must have an axis or None per dimension. Received: "
                f"{axes} for the weight {path!r} of shape {shape}"
            )
        self._check_division(path, shape, axes)

    def _check_division(self, path, shape, axes):
        for i, axis in enumerate(axes):
            if axis is None or shape[i] % self.axis_sizes[axis] == 0:
                continue
            in_heads = axis == MODEL and re.search(r"/(attention|pooling)/", path)
            what = "heads" if in_heads and len(shape) > 2 else "numbers"
            raise ValueError(
                f"The {self.axis_sizes[axis]} devices of the axis {axis!r} must divide the "
                f"dimension that they shard. Received: {path!r} of shape {shape}, with "
                f"{shape[i]} {what} in dimension {i}. Use a `model_axis` that divides "
                "them, or fully_sharded() without one."
            )


def _in_step():
    """True in the trace of a step, whose batches divide; false in a user's own call."""
    return in_stateless_scope() and not in_symbolic_scope()


def _example(path, shape, axis):
    axes = (*(None,) * (len(shape) - 1), axis)
    return f"such as layouts={{{public_path(path)!r}: {axes}}}"
