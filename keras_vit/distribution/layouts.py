"""Which dimension of each weight is split over which axis of a mesh of devices."""

import math
import re

import keras

from keras_vit.distribution.parts import ProcessParts
from keras_vit.keras_internals.stateless_scope import (
    in_stateless_scope,
    in_symbolic_scope,
)
from keras_vit.keras_internals.variable_values import layout
from keras_vit.weight_paths import public_path

BATCH, MODEL = "batch", "model"
# Numbers from which on a weight must be split: 256 KiB in float32. Below are norms,
# biases, tokens and the heads of small data sets.
MIN_SIZE = 2**16

# Tensor parallelism, by the end of a weight's path. Layers come in pairs, of which the
# first splits its outputs and the second sums over what it has of its inputs: one
# all-reduce for both, and the tokens between two pairs are whole on each device
# (Megatron-LM, arXiv 1909.08053, section 3). Where a pair of LoRA's matrices takes the
# place of a kernel, the one that has the split dimension is split.
_TENSOR_PARALLEL = {
    # (hidden_dim, 3, heads, head_dim) and back: whole heads, so that a device has the
    # queries, keys and values of its own.
    "attention/qkv/kernel": (None, None, MODEL, None),
    "attention/qkv/bias": (None, MODEL, None),
    "attention/qkv/lora_kernel_a": (None, None, MODEL, None),
    "attention/qkv/lora_kernel_b": (None, None),
    "attention/projection/kernel": (MODEL, None, None),
    "attention/projection/lora_kernel_a": (MODEL, None, None),
    "attention/projection/lora_kernel_b": (None, None),
    "mlp/dense_1/kernel": (None, MODEL),
    "mlp/dense_1/bias": (MODEL,),
    "mlp/dense_1/lora_kernel_a": (None, None),
    "mlp/dense_1/lora_kernel_b": (None, MODEL),
    "mlp/dense_2/kernel": (MODEL, None),
    "mlp/dense_2/lora_kernel_a": (MODEL, None),
    "mlp/dense_2/lora_kernel_b": (None, None),
    # The head by its inputs: classes are as many as they are.
    "pre_logits/kernel": (None, MODEL),
    "pre_logits/bias": (MODEL,),
    "head/kernel": (MODEL, None),
    # ResNets: (height, width, inputs, outputs).
    r"(stem_)?stage_\d+_unit_\d+/conv_1/kernel": (None, None, None, MODEL),
    r"(stem_)?stage_\d+_unit_\d+/(conv_2|conv_3|shortcut_conv)/kernel": (
        *(None, None, MODEL, None),
    ),
    # Whole: in B/16 of 1 % of all weights, and what is split here is gathered again.
    r"(stem_)?root/conv/kernel": (None, None, None, None),
    "patch_embedding/kernel": (None, None, None, None),
    "position_embedding/grid": (None, None, None),
}

# What layers hand on.
_OUTPUTS = {
    "attention/qkv": (BATCH, None, None, MODEL, None),
    "mlp/dense_1": (BATCH, None, MODEL),
    "pre_logits": (BATCH, MODEL),
    r"patch_embedding|position_embedding|encoder_norm|block_\d+|pooling|head": (BATCH,),
    "attention|attention/projection|mlp|mlp/dense_2|attention_norm|mlp_norm": (BATCH,),
    r"(stem_)?root|(stem_)?stage_\d+_unit_\d+": (BATCH,),
}


def tensor_parallel_axes(path: str, shape: tuple[int, ...]) -> tuple | None:
    """The axis of each dimension under tensor parallelism, `None` where no rule is.

    Args:
        path: of the weight, as Keras has it: `"vit/block_0/attention/qkv/kernel"`.
        shape: of the weight.
    """
    for pattern, axes in _TENSOR_PARALLEL.items():
        if len(axes) == len(shape) and re.fullmatch(f"(.*/)?{pattern}", path):
            return axes
    return None


class Layouts(keras.distribution.LayoutMap):
    """A `LayoutMap` whose patterns may be of paths without the name of the model."""

    def __getitem__(self, path):
        for spelling in (path, public_path(path)):
            # Keras 3.13 takes a pattern that matches a part of a path, too.
            patterns = [spelling] if spelling in list(self) else self._matching(spelling)
            if patterns:
                return super().__getitem__(patterns[0])
        return None

    def _matching(self, path):
        patterns = [pattern for pattern in self if re.fullmatch(pattern, path)]
        if len(patterns) > 1:
            raise ValueError(
                "One pattern of `layouts` at most may match the path of a weight. "
                f"Received: {patterns}, which all match {path!r}. Leave out all but one."
            )
        return patterns


class ShardedWeights(ProcessParts, keras.distribution.ModelParallel):
    """A `keras.distribution.ModelParallel` that finds the layout of each weight itself.

    A weight has its layout by its path and its shape as it is made, and whatever an
    optimizer keeps of it has the same. Keras' own `LayoutMap` leaves whole, without a
    word, what no key matches; here that is an error from 65,536 numbers on.

    Args:
        device_mesh: `keras.distribution.DeviceMesh` with the axis `"batch"`, and with
            `"model"` for tensor parallelism.
        shard_batch_axis: bool, whether each large weight is also split over `"batch"`,
            along the longest dimension that divides and is not split over `"model"`; one
            that is, and has no other such dimension, is left as it is.
        layouts: dictionary of regular expressions that match a whole path, as in
            `keras.distribution.LayoutMap`, or the path from a public layer of our models
            on (`"head/kernel"`), to a tuple with an axis or None for each
            dimension: of weights that are not of this package, or are to be otherwise.

    Raises:
        ValueError: in building a model: of a large weight that would stay whole, and of
            any weight that its axis does not divide.
    """

    def __init__(self, device_mesh, *, shard_batch_axis: bool = False, layouts=None):
        self.layouts = Layouts(device_mesh)
        for pattern, axes in (layouts or {}).items():
            self.layouts[pattern] = tuple(axes)
        super().__init__(layout_map=self.layouts, batch_dim_name=BATCH)
        self.shard_batch_axis = shard_batch_axis
        self.axis_sizes = dict(zip(device_mesh.axis_names, device_mesh.shape, strict=True))

    @property
    def name(self) -> str:
        """`"fully_sharded"` or `"tensor_parallel"`, which may be on the same mesh."""
        return "fully_sharded" if self.shard_batch_axis else "tensor_parallel"

    def get_variable_layout(self, variable):
        """The `TensorLayout` of a variable, see the class."""
        # What an optimizer or a user has given it, first.
        given = layout(variable)
        if given is not None:
            return given
        axes = self.axes(variable.path, tuple(variable.shape))
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def get_tensor_layout(self, path):
        """The `TensorLayout` of a layer's output, by its path with `"/output"` after it.

        Where weights are split over the axis of the batch, XLA may move the images
        instead, and does where they are smaller; and a head that is split by its inputs
        makes it split the tokens of every block, which are then gathered for each
        projection. What our layers hand on is held to what it should be.
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
        """The axis of the mesh, or None, of each dimension of a weight.

        Args:
            path: of the weight.
            shape: of the weight.

        Raises:
            ValueError: if no rule is for it though it is large, or one does not divide it.
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
                    f"No rule of tensor parallelism is for the weight {path!r} of shape "
                    f"{shape}, and it is too large to be whole on each device. Say how it "
                    f"is split, {_example(path, shape, MODEL)}, or that it is not, with "
                    "None for each dimension."
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
            return axes  # as the head of 1,000 classes, by 16 devices
        if not free:
            raise ValueError(
                f"The weight {path!r} of shape {shape} has no dimension that the {size} "
                f"devices of the axis {BATCH!r} divide. Take another number of devices, "
                f"or leave it whole: layouts={{{public_path(path)!r}: "
                f"{(None,) * len(shape)}}}."
            )
        longest = max(free, key=lambda i: (shape[i], i))
        return (*axes[:longest], BATCH, *axes[longest + 1 :])

    def _check_given(self, path, shape, axes):
        if len(axes) != len(shape):
            raise ValueError(
                "A layout must have an axis or None for each dimension. Received: "
                f"{axes} for the weight {path!r} of shape {shape}"
            )
        self._check_division(path, shape, axes)

    def _check_division(self, path, shape, axes):
        for i, axis in enumerate(axes):
            if axis is None or shape[i] % self.axis_sizes[axis] == 0:
                continue
            what = "heads" if "/attention/" in path and axis == MODEL else "numbers"
            raise ValueError(
                f"The {self.axis_sizes[axis]} devices of the axis {axis!r} must divide "
                f"what they split. Received: the weight {path!r} of shape {shape}, with "
                f"{shape[i]} {what} in dimension {i}. Take a `model_axis` that divides "
                "them, or fully_sharded() without one."
            )


def _in_step():
    """Whether a step is traced, whose batches divide: not in a call of one's own."""
    return in_stateless_scope() and not in_symbolic_scope()


def _example(path, shape, axis):
    axes = (*(None,) * (len(shape) - 1), axis)
    return f"such as layouts={{{public_path(path)!r}: {axes}}}"
