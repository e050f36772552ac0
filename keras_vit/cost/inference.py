"""Cost of a forward pass: multiply-accumulates and memory, computed from a model's config.

The forward pass of one image is a sequence of operations, in the order of the data. The
cost is the sum of their multiply-accumulates and the maximum of their memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature

from keras_vit import arguments
from keras_vit.cost.efficientnet import efficientnet_operations
from keras_vit.cost.operation import FLOAT32
from keras_vit.cost.resnet import bit_operations
from keras_vit.cost.vit import vit_operations
from keras_vit.models import bit, efficientnet, vision_transformer
from keras_vit.models.sizes import count_parameters

NUMBER_BYTES = {"float32": FLOAT32, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Cost:
    """Cost of the inference of a batch.

    Attributes:
        parameters: number of parameters of the model at this resolution.
        multiply_accumulates_by_part: multiply-accumulates of each part of the model, in
            the order of the data.
        peak_activation_bytes: peak activation memory, as `cost` defines it.
    """

    parameters: int
    multiply_accumulates_by_part: Mapping[str, int]
    peak_activation_bytes: int

    @property
    def multiply_accumulates(self) -> int:
        """Sum over all parts. The FLOPs of most papers are twice as many."""
        return sum(self.multiply_accumulates_by_part.values())


def cost(
    config: Mapping,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 1,
    dtype: str = "float32",
    flash_attention: bool = False,
) -> Cost:
    """Cost of the inference of a batch. No model is built.

    Multiply-accumulates are those of matrix products and convolutions, including the
    zeros of padding. Norms, activations, sums, softmax and weight standardization are
    left out; they are about a thousandth.

    Peak activation memory is the memory of operations that run one after the other, if
    each tensor is freed after its last use. It is the maximum over the operations of
    the forward pass. For one operation, it is the sum of the sizes of all tensors that
    depend on the images and that the operation reads, writes, or leaves for a later one:

    - Every operation (a matrix product with its bias, the product and the sum of a group
      norm, …) writes a new tensor. Padding copies its input.
    - A slice is a view, which keeps the whole tensor in memory. Queries, keys and values
      are views of one tensor; they are copied only for the scores.
    - The statistics of norms, one or two numbers per vector, are left out.
    - Weights, and tensors computed from weights alone, are left out.

    The compilers of JAX and TensorFlow fuse some operations and copy other tensors. Keras
    on torch, which compiles nothing, also holds each layer's output until the end.

    Args:
        config: arguments of a `VisionTransformer`, of a `BiTResNet` (with `num_units`) or
            of an `EfficientNet` (with `num_blocks`).
        image_size: int or (height, width), in pixels; `None` for the config's.
        batch_size: int, number of images.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`, the dtype that layers compute in,
            or a policy such as `"mixed_bfloat16"`. Norms, attention scores and the head
            compute in float32 always.
        flash_attention: bool, whether attention is one operation that never holds all of
            its scores in memory, as in torch.

    Raises:
        ValueError: if an argument is out of its range, or the model cannot take images of
            this size.

    Example:

    >>> config = {"image_size": 224, **architecture_fields("ViTB16"), "classes": 1000}
    >>> cost(config, image_size=384).multiply_accumulates
    51576471552
    """
    arguments.positive(batch_size, "batch_size")
    dtype = arguments.one_of(dtype.removeprefix("mixed_"), NUMBER_BYTES, "dtype")
    fields = _fields(config, image_size)
    fields.number_bytes = NUMBER_BYTES[dtype]
    fields.flash_attention = flash_attention
    *_, operations = _family(config)
    products, peak = {}, 0
    for operation in operations(fields):
        part, number = operation.part, batch_size * operation.multiply_accumulates
        products[part] = products.get(part, 0) + number
        peak = max(peak, batch_size * operation.live_bytes)
    return Cost(
        count_parameters(**vars(fields)),
        {part: number for part, number in products.items() if number},
        peak,
    )


def _family(config):
    """(module of the model, its class, its operations) of a config."""
    if "num_units" in config:
        return bit, bit.BiTResNet, bit_operations
    if "num_blocks" in config:
        return efficientnet, efficientnet.EfficientNet, efficientnet_operations
    return vision_transformer, vision_transformer.VisionTransformer, vit_operations


def _fields(config, image_size):
    """Checked fields of a config with the defaults of the model, and `channels`."""
    module, model, _ = _family(config)
    parameters = signature(model).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    fields = {**defaults, **config}
    if image_size is None:
        image_size = fields["image_size"]
    image_size = arguments.pair(image_size, "image_size")
    channels = 3
    if shape := fields["input_shape"]:
        channels_last = (
            arguments.image_data_format(fields["data_format"]) == "channels_last"
        )
        channels = shape[-1 if channels_last else 0]
        shape = (*image_size, channels) if channels_last else (channels, *image_size)
    fields |= {"image_size": image_size, "input_shape": shape}
    c = module.checked_fields(fields)
    c.channels = channels
    return c
