"""The forward pass of a Vision Transformer as steps.

`held` is bytes of what steps that follow need besides.
"""

from collections.abc import Iterator
from math import prod

from keras_vit.cost.resnet import of_resnet
from keras_vit.cost.step import FLOAT32, Step, of_head, of_images
from keras_vit.layers.mlp import GATED
from keras_vit.models.sizes import grid_size


def of_vit(c) -> Iterator[Step]:
    """The steps of a model with these fields."""
    hidden_dim, number = c.hidden_dim, c.number
    grid = grid_size(c.image_size, c.patch_size, c.stem)
    channels = c.channels
    yield from of_images(c)
    if c.stem:
        *_, channels = yield from of_resnet(c, **c.stem, part="stem")
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
    for leaving in merged:
        yield from _block(tokens, tokens, c, leaving)
        tokens -= leaving
    if c.pooling == "token" and not c.full_last_block:
        outputs = 1
        yield from _block(outputs, tokens, c)
    else:
        outputs = tokens - last
        yield from _block(tokens, tokens, c, last)
    if not c.fc_norm:
        yield from _layer_norm("encoder_norm", 0, outputs * hidden_dim, c, kept=False)
    yield from _pool(outputs, prefix, c)


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
    yield from of_head(width, c)
