"""What a forward pass costs, from a model's config: multiply-accumulates and memory.

The forward pass of one image is written down as steps, in the order in which the image
passes them; the costs are the sum and the maximum over them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature

from keras_vit import arguments
from keras_vit.cost.resnet import of_bit
from keras_vit.cost.step import FLOAT32
from keras_vit.cost.vit import of_vit
from keras_vit.models import bit, vision_transformer
from keras_vit.models.sizes import count_parameters

NUMBER_BYTES = {"float32": FLOAT32, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Cost:
    """Cost of the inference of a batch.

    Attributes:
        parameters: number of parameters of the model at this resolution.
        multiply_accumulates_by_part: by part of the model, in the order in which an
            image passes them.
        peak_activation_bytes: as `cost` defines it.
    """

    parameters: int
    multiply_accumulates_by_part: Mapping[str, int]
    peak_activation_bytes: int

    @property
    def multiply_accumulates(self) -> int:
        """Of all parts. The FLOPs of most papers are twice as many."""
        return sum(self.multiply_accumulates_by_part.values())


def cost(
    config: Mapping,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 1,
    dtype: str = "float32",
    flash_attention: bool = False,
) -> Cost:
    """What the inference of a batch costs. No model is built.

    Multiply-accumulates are those of matrix products and convolutions, the zeros that
    images are padded with included. Norms, activations, sums, softmax and the
    standardisation of kernels, a thousandth of them, are left out.

    Peak activation memory is the largest sum, over the operations of the forward pass,
    of the sizes of the tensors that depend on the images and are read or written by the
    operation, or written before it and read after it. Every operation (a matrix product
    with its bias, the product and the sum of a group norm, …) writes a new tensor; a
    slice is a view, which keeps the whole alive; queries, keys and values are views of one
    tensor, and copied for the scores alone; what is padded is copied. The statistics of
    norms, one or two numbers for a vector, are left out. The weights, and what is computed
    from them alone, come on top. That is what operations one after the other need if each
    tensor is freed after its last use. The compilers of JAX and TensorFlow fuse operations
    and copy others; Keras on torch, which compiles nothing, holds each layer's output to
    the end besides.

    Args:
        config: arguments of a `VisionTransformer`, or of a `BiTResNet` (`num_units`).
        image_size: int or (height, width), in pixels; `None` for the config's.
        batch_size: int, number of images.
        dtype: `"float32"`, `"float16"`, `"bfloat16"`, what the layers compute in, or a
            policy such as `"mixed_bfloat16"`; norms, attention scores and the head do so
            in float32 always.
        flash_attention: bool, whether attention is one operation that never has all of
            its scores in memory, as torch's is.

    Raises:
        ValueError: if an argument is out of its range, or the model of the config takes
            no images of this size.

    Example:

    >>> config = {"image_size": 224, **architecture_fields("ViTB16"), "classes": 1000}
    >>> cost(config, image_size=384).multiply_accumulates
    51576471552
    """
    arguments.positive(batch_size, "batch_size")
    dtype = arguments.one_of(dtype.removeprefix("mixed_"), NUMBER_BYTES, "dtype")
    fields = _fields(config, image_size)
    fields.number = NUMBER_BYTES[dtype]
    fields.flash_attention = flash_attention
    parts, peak = {}, 0
    for step in of_bit(fields) if hasattr(fields, "num_units") else of_vit(fields):
        parts[step.part] = parts.get(step.part, 0) + batch_size * step.multiply_accumulates
        peak = max(peak, batch_size * step.alive)
    return Cost(
        count_parameters(**vars(fields)),
        {part: number for part, number in parts.items() if number},
        peak,
    )


def _fields(config, image_size):
    """The fields of a config with defaults, checked as the model does, and `channels`."""
    module, model = vision_transformer, vision_transformer.VisionTransformer
    if "num_units" in config:
        module, model = bit, bit.BiTResNet
    parameters = signature(model).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty}
    fields = {**known, **config}
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
