"""What a forward pass costs, from a model's config: multiply-accumulates and memory.

The forward pass of one image is written down as steps, in the order in which the image
passes them; the costs are the sum and the maximum over them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from math import prod

from keras_vit.layers import arguments
from keras_vit.layers.mlp import GATED
from keras_vit.layers.resnet import EXPANSION
from keras_vit.models import bit, vision_transformer
from keras_vit.models.resnet_stem import checked_width
from keras_vit.models.sizes import count_parameters, grid_size

FLOAT32 = 4  # bytes of a number
NUMBER_BYTES = {"float32": FLOAT32, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Step:
    """An operation of the forward pass of one image.

    Attributes:
        part: of the model, such as `"mlp"`.
        alive: bytes of the tensors that are in memory while it runs.
        multiply_accumulates: 0 where it is no matrix product.
    """

    part: str
    alive: int
    multiply_accumulates: int = 0


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
    for step in _bit(fields) if hasattr(fields, "num_units") else _vit(fields):
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


# The steps. `held` is bytes of what steps that follow need besides.


def _vit(c) -> Iterator[Step]:
    hidden_dim, number = c.hidden_dim, c.number
    grid = grid_size(c.image_size, c.patch_size, c.stem)
    channels = c.channels
    yield from _images(c)
    if c.stem:
        *_, channels = yield from _resnet(c, **c.stem, part="stem")
    patch = channels * prod(c.patch_size)
    patches = prod(grid)
    yield Step("patch_embedding", 2 * patches * patch * number)  # cut
    yield from _dense("patch_embedding", 0, patches, patch, hidden_dim, c)

    prefix = c.class_token + c.num_registers
    tokens = prefix + patches
    if c.position != "none":
        yield Step("position_embedding", 2 * patches * hidden_dim * number)
    yield Step("position_embedding", (patches + tokens) * hidden_dim * number)
    if c.pre_norm:
        yield from _layer_norm("pre_norm", 0, tokens * hidden_dim, c, kept=False)

    *merged, last = c.merged_tokens
    for number in merged:
        yield from _block(tokens, tokens, c, number)
        tokens -= number
    if c.pooling == "token" and not c.full_last_block:
        outputs = 1
        yield from _block(outputs, tokens, c)
    else:
        outputs = tokens - last
        yield from _block(tokens, tokens, c, last)
    if not c.fc_norm:
        yield from _layer_norm("encoder_norm", 0, outputs * hidden_dim, c, kept=False)
    yield from _pool(outputs, prefix, c)


def _images(c):
    """The images as they come, in float32, and as the first layer takes them."""
    numbers = prod(c.image_size) * c.channels
    yield Step("images", numbers * FLOAT32)
    if c.include_preprocessing:
        yield Step("images", 2 * numbers * FLOAT32)
    if c.number != FLOAT32:
        yield Step("images", numbers * (FLOAT32 + c.number))


def _dense(part, held, tokens, inputs, outputs, c):
    """A matrix product over the last axis of (tokens, inputs), with its bias."""
    alive = held + tokens * (inputs + outputs) * c.number
    yield Step(part, alive, tokens * inputs * outputs)


def _layer_norm(part, held, numbers, c, kept=True):
    """A layer norm, in float32; its input is part of `held` if it is `kept`."""
    tensors = 1 if kept and c.number == FLOAT32 else 2  # half precision is copied
    yield Step(part, held + tensors * numbers * FLOAT32)


def _block(outputs, tokens, c, merged=0):
    """An encoder block that computes some of its tokens; the first `outputs` ask. Of them
    it merges some.
    """
    size = c.hidden_dim * c.number
    inputs = tokens * size  # of which those that ask are a view
    yield from _layer_norm("attention_norm", inputs, tokens * c.hidden_dim, c)
    if outputs < tokens:  # they are normed by themselves
        held = inputs + tokens * size
        yield from _layer_norm("attention_norm", held, outputs * c.hidden_dim, c)
    held = inputs
    if merged:  # by the keys' mean over heads, which is taken in float32
        projected = (5 if c.qk_norm else 3) * tokens * size
        numbers = tokens * c.hidden_dim // c.num_heads
        copied = 0 if c.number == FLOAT32 else tokens * c.hidden_dim
        mean = (numbers + copied) * FLOAT32
        yield Step("attention_projections", inputs + projected + mean)
        held += numbers * c.number
    yield from _attention(held, outputs, tokens, c, c.qk_norm)
    if c.layer_scale is not None:
        yield Step("layer_scale", held + 2 * outputs * size)
    yield Step("residual", held + 2 * outputs * size)
    if merged:
        yield from _merge(outputs, merged, c)
        outputs -= merged

    yield from _layer_norm("mlp_norm", outputs * size, outputs * c.hidden_dim, c)
    yield from _mlp("mlp", outputs * size, outputs, c.mlp, c)
    if c.layer_scale is not None:
        yield Step("layer_scale", 3 * outputs * size)
    yield Step("residual", 3 * outputs * size)


def _merge(tokens, merged, c):
    """Finds the most alike of two sets of tokens, and averages them."""
    prefix = c.class_token + c.num_registers
    second = (tokens - prefix + prefix % 2) // 2
    first = tokens - prefix - second
    size = c.hidden_dim * c.number
    head_dim = c.hidden_dim // c.num_heads
    similarity = (tokens * head_dim + first * second) * FLOAT32
    yield Step("merging", tokens * size + similarity, first * second * head_dim)
    held = (tokens + first) * size  # the first set is brought into order
    yield Step("merging", held + second * size, merged * second * c.hidden_dim)
    yield Step("merging", held + 3 * second * size)  # of products a sum
    yield Step("merging", held + (second + tokens - merged) * size)  # joined


def _attention(held, queries, keys, c, norm=False, part=None):
    """Attention of so many queries to so many keys; `part` where all of it is one.

    Queries, keys and values are one tensor where all tokens ask, else two.
    """
    projections = part or "attention_projections"
    width = c.hidden_dim
    size = width * c.number
    if queries == keys:
        yield from _dense(projections, held, keys, width, 3 * width, c)
    else:
        yield from _dense(projections, held + keys * size, queries, width, width, c)
        asked = held + queries * size
        yield from _dense(projections, asked, keys, width, 2 * width, c)
    kept = (3 if queries == keys else 2) * keys * size  # of which the values are a view
    asking = 0 if queries == keys else queries * size
    if norm:
        yield from _layer_norm(projections, held + kept + asking, queries * width, c)
        normed = held + kept + queries * size
        yield from _layer_norm(projections, normed, keys * width, c)
        asking = (queries + keys) * size
    yield from _attend(held, kept, asking, queries, keys, c, part or "attention_scores")
    yield from _dense(projections, held, queries, width, width, c)


def _attend(held, kept, asking, queries, keys, c, part):
    """Scores of queries and keys, and the sums of values that they weigh.

    `kept` is the tensor that has the values, `asking` what has the queries, and the
    keys, if they are others.
    """
    products = queries * keys * c.hidden_dim
    if c.flash_attention:
        outputs = queries * c.hidden_dim * c.number
        yield Step(part, held + kept + asking + outputs, 2 * products)
        return
    query, key = (number * c.hidden_dim * FLOAT32 for number in (queries, keys))
    if c.number != FLOAT32:
        yield Step(part, held + kept + query + 2 * key)
        kept = key  # the values in float32
    scores = c.num_heads * queries * keys * FLOAT32
    yield Step(part, held + kept + query + 2 * key)  # scaled
    yield Step(part, held + kept + query + key + scores, products)
    yield Step(part, held + kept + 2 * scores)  # softmax
    yield Step(part, held + kept + key + scores)  # the values, copied
    yield Step(part, held + query + key + scores, products)


def _mlp(part, held, tokens, activation, c):
    halves = 2 if activation in GATED else 1
    hidden = tokens * c.mlp_dim * c.number
    yield from _dense(part, held, tokens, c.hidden_dim, halves * c.mlp_dim, c)
    # GELU reads and writes; the others read once more what they multiply.
    others = {"gelu": 0, "quick_gelu": 1, "swiglu": 2, "geglu": 2}[activation]
    yield Step(part, held + (2 + others) * hidden)
    yield from _dense(part, held, tokens, c.mlp_dim, c.hidden_dim, c)


def _pool(tokens, prefix, c):
    width, number = c.hidden_dim, c.number
    if c.pooling is None:
        return
    if c.pooling == "gap":
        wide = number if number == FLOAT32 else number + FLOAT32
        yield Step("pooling", (tokens * wide + FLOAT32) * width)
    elif c.pooling == "map":
        yield from _attention(0, 1, tokens - prefix, c, part="pooling")
        yield from _layer_norm("pooling", width * number, width, c)
        activation = "gelu" if c.mlp in GATED else c.mlp
        yield from _mlp("pooling", width * number, 1, activation, c)
    if c.fc_norm:
        yield from _layer_norm("fc_norm", 0, width, c, kept=False)
    if c.representation_size:
        yield from _dense("pre_logits", 0, 1, width, c.representation_size, c)
        width = c.representation_size
    yield from _head(width, c)


def _head(width, c):
    if c.classes:
        yield Step("head", (width + c.classes) * FLOAT32, width * c.classes)


def _bit(c) -> Iterator[Step]:
    yield from _images(c)
    rows, columns, channels = yield from _resnet(
        c, c.num_units, c.width_factor, pre_activation=True
    )
    numbers = rows * columns * channels
    yield from _group_norm("norm", 0, numbers, c)
    yield Step("norm", 2 * numbers * c.number)
    if c.pooling:
        yield Step("pooling", (numbers + channels) * c.number)
        yield from _head(channels, c)


def _resnet(c, num_units, width_factor, *, pre_activation=False, part=None, **others):
    """Root and stages, each a part if they are not one; gives the map's shape."""
    filters = checked_width(width_factor)
    size = yield from _root(filters, pre_activation, part or "root", c)
    channels = filters
    unit = _pre_activation_unit if pre_activation else _bottleneck_unit
    for stage, units in enumerate(num_units):
        name = part or f"stage_{stage}"
        for i in range(units):
            strides = 2 if stage and not i else 1
            new = tuple(-(-side // strides) for side in size)
            yield from unit(name, size, new, channels, filters * 2**stage, c)
            size, channels = new, EXPANSION * filters * 2**stage
    return (*size, channels)


def _root(filters, pre_activation, part, c):
    """A 7 x 7 convolution and a 3 x 3 max-pooling, which halve the sides."""
    images = prod(c.image_size) * c.channels * c.number
    size = tuple(-(-side // 2) for side in c.image_size)
    numbers = prod(size) * filters
    padded = prod(_padded(c.image_size, 7, pre_activation)) * c.channels * c.number
    products = 49 * c.channels * numbers
    yield Step(part, images + padded)
    yield Step(part, padded + numbers * c.number, products)
    if not pre_activation:
        yield from _group_norm(part, 0, numbers, c)
        yield Step(part, 2 * numbers * c.number)
    padded = prod(_padded(size, 3, pre_activation)) * filters
    yield Step(part, (numbers + padded) * c.number)
    size = tuple(-(-side // 2) for side in size)
    yield Step(part, (padded + prod(size) * filters) * c.number)
    return size


def _padded(size, kernel, every_side):
    """Sides with zeros on each (BiT), or as many as TensorFlow's "same" at stride 2."""
    if every_side:
        return tuple(side + kernel - 1 for side in size)
    return tuple(max(side, 2 * -(-side // 2) + kernel - 2) for side in size)


def _group_norm(part, held, numbers, c):
    """Its product and its sum, in float32."""
    yield Step(part, held + 2 * numbers * FLOAT32)


def _bottleneck_unit(part, size, new, channels, filters, c):
    outputs = EXPANSION * filters
    inputs = prod(size) * channels * c.number
    shortcut = prod(new) * outputs
    kept = 0  # the images, if the shortcut is another tensor
    if size != new or channels != outputs:
        kept = inputs
        products = shortcut * channels
        yield Step(part, inputs + shortcut * c.number, products)
        yield from _group_norm(part, kept, shortcut, c)
    held = shortcut * c.number
    maps = _maps(size, new, channels, filters)
    for i, (numbers, products) in enumerate(maps):
        before = kept if i == 0 else maps[i - 1][0] * c.number
        yield Step(part, held + before + numbers * c.number, products)
        yield from _group_norm(part, held, numbers, c)
        yield Step(part, held + 2 * numbers * c.number)  # ReLU, at last the sum


def _pre_activation_unit(part, size, new, channels, filters, c):
    outputs = EXPANSION * filters
    inputs = prod(size) * channels
    held = inputs * c.number  # the shortcut
    has_projection = size != new or channels != outputs
    before = 0 if has_projection else held
    yield from _group_norm(part, before, inputs, c)
    yield Step(part, before + 2 * inputs * c.number)
    if has_projection:
        held = prod(new) * outputs * c.number
        yield Step(part, inputs * c.number + held, prod(new) * outputs * channels)
    before = inputs * c.number
    for i, (numbers, products) in enumerate(_maps(size, new, channels, filters)):
        if i:
            yield from _group_norm(part, held, before // c.number, c)
            yield Step(part, held + 2 * before)
        if i == 1:
            padded = prod(side + 2 for side in size) * filters * c.number
            yield Step(part, held + before + padded)
            before = padded
        yield Step(part, held + before + numbers * c.number, products)
        before = numbers * c.number
    yield Step(part, held + 2 * before)


def _maps(size, new, channels, filters):
    """Numbers and multiply-accumulates of the three convolutions of a unit."""
    first, second = prod(size) * filters, prod(new) * filters
    third = EXPANSION * second
    return [
        (first, first * channels),
        (second, second * 9 * filters),
        (third, third * filters),
    ]
