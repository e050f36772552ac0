"""Operations of the forward pass of a Vision Transformer."""

from collections.abc import Iterator
from math import prod
from types import SimpleNamespace

from keras_vit.cost.operation import FLOAT32, Operation, head_operations, image_operations
from keras_vit.cost.resnet import resnet_operations
from keras_vit.layers.mlp import GATED
from keras_vit.layers.position import LEARNED
from keras_vit.layers.sincos import FIXED
from keras_vit.models.fields import num_prefix
from keras_vit.models.sizes import grid_size


def vit_operations(c: SimpleNamespace) -> Iterator[Operation]:
    """Forward pass of a `VisionTransformer` with these fields."""
    hidden_dim, number = c.hidden_dim, c.number_bytes
    grid = grid_size(c.image_size, c.patch_size, c.stem)
    channels = c.channels
    yield from image_operations(c)
    if c.stem:
        *_, channels = yield from resnet_operations(c, **c.stem, part="stem")
    patch = channels * prod(c.patch_size)
    patches = prod(grid)
    yield Operation("patch_embedding", 2 * patches * patch * number)  # images into patches
    yield from _dense("patch_embedding", 0, patches, patch, hidden_dim, c)

    if c.patch_norm:
        yield from _layer_norm("patch_norm", 0, patches * hidden_dim, c, kept=False)

    prefix = num_prefix(c)
    tokens = prefix + patches
    if c.position in (*LEARNED, *FIXED) and c.position_at == "stem":
        yield Operation("position_embedding", 2 * patches * hidden_dim * number)
    yield Operation("position_embedding", (patches + tokens) * hidden_dim * number)
    if c.pre_norm:
        yield from _layer_norm("pre_norm", 0, tokens * hidden_dim, c, kept=False)

    *merged, last = c.merged_tokens
    for num_merged in merged:
        yield from _block(tokens, tokens, c, num_merged)
        tokens -= num_merged
    if c.pooling == "token" and not c.full_last_block:
        outputs = 1 + c.distilled
        yield from _block(outputs, tokens, c)
    else:
        outputs = tokens - last
        yield from _block(tokens, tokens, c, last)
    if c.final_norm and not c.fc_norm:
        yield from _layer_norm("encoder_norm", 0, outputs * hidden_dim, c, kept=False)
    yield from _pool(outputs, prefix, c)


def _dense(part, held, tokens, inputs, outputs, c):
    """A matrix product over the last axis of (tokens, inputs), with a bias."""
    alive = held + tokens * (inputs + outputs) * c.number_bytes
    yield Operation(part, alive, tokens * inputs * outputs)


def _layer_norm(part, held, numbers, c, kept=True):
    """A layer norm, in float32; if `kept`, its input is part of `held`."""
    tensors = 1 if kept and c.number_bytes == FLOAT32 else 2  # half precision is copied
    yield Operation(part, held + tensors * numbers * FLOAT32)


def _block(outputs, tokens, c, merged=0):
    """An encoder block; the first `outputs` tokens are queries, `merged` get merged."""
    size = c.hidden_dim * c.number_bytes
    inputs = tokens * size  # the queries' inputs are a view of them
    if c.position_at != "stem":
        queries = outputs * (outputs < tokens)  # with their positions no view any more
        yield Operation("position_embedding", (2 * tokens + queries) * size)
        inputs += queries * size
    if not c.norm_after:
        yield from _layer_norm("attention_norm", inputs, tokens * c.hidden_dim, c)
        if outputs < tokens:  # the queries' inputs have a norm of their own
            held = inputs + tokens * size
            yield from _layer_norm("attention_norm", held, outputs * c.hidden_dim, c)
    held = inputs
    if merged:  # by the mean of the keys over heads, in float32
        projected = (5 if c.qk_norm else 3) * tokens * size
        numbers = tokens * c.hidden_dim // c.num_heads
        copied = 0 if c.number_bytes == FLOAT32 else tokens * c.hidden_dim
        mean = (numbers + copied) * FLOAT32
        yield Operation("attention_projections", inputs + projected + mean)
        held += numbers * c.number_bytes
    attention = {"norm": c.qk_norm, "sub_norm": c.attention_sub_norm}
    attention["turns"] = c.rope is not None
    attention["relative"] = c.position == "relative_key"
    yield from _attention(held, outputs, tokens, c, **attention)
    if c.norm_after:
        numbers = outputs * c.hidden_dim
        yield from _layer_norm("attention_norm", held + outputs * size, numbers, c)
    if c.layer_scale is not None:
        yield Operation("layer_scale", held + 2 * outputs * size)
    yield Operation("residual", held + 2 * outputs * size)
    if merged:
        yield from _merge(outputs, merged, c)
        outputs -= merged

    if not c.norm_after:
        yield from _layer_norm("mlp_norm", outputs * size, outputs * c.hidden_dim, c)
    yield from _mlp(
        *("mlp", outputs * size, outputs, c.mlp_dim, c.mlp, c), sub_norm=c.mlp_sub_norm
    )
    if c.norm_after:
        yield from _layer_norm("mlp_norm", 2 * outputs * size, outputs * c.hidden_dim, c)
    if c.layer_scale is not None:
        yield Operation("layer_scale", 3 * outputs * size)
    yield Operation("residual", 3 * outputs * size)


def _merge(tokens, merged, c):
    """Token merging: compares two sets of tokens and averages the most similar pairs."""
    prefix = num_prefix(c)
    second = (tokens - prefix + prefix % 2) // 2
    first = tokens - prefix - second
    size = c.hidden_dim * c.number_bytes
    head_dim = c.hidden_dim // c.num_heads
    similarity = (tokens * head_dim + first * second) * FLOAT32
    yield Operation("merging", tokens * size + similarity, first * second * head_dim)
    held = (tokens + first) * size  # the first set is sorted
    yield Operation("merging", held + second * size, merged * second * c.hidden_dim)
    yield Operation("merging", held + 3 * second * size)  # the products and their sum
    yield Operation("merging", held + (second + tokens - merged) * size)  # concatenated


def _attention(
    held,
    queries,
    keys,
    c,
    *,
    norm=False,
    turns=False,
    relative=False,
    sub_norm=False,
    part=None,
    heads=None,
):
    """Attention of some queries to some keys; `part` names the part of all operations.

    `heads` is the number of heads where it is not the blocks'.

    Queries, keys and values are one tensor if every token is a query; otherwise the
    queries are a tensor and keys and values another.
    """
    projections = part or "attention_projections"
    width = c.hidden_dim
    size = width * c.number_bytes
    if queries == keys:
        yield from _dense(projections, held, keys, width, 3 * width, c)
    else:
        yield from _dense(projections, held + keys * size, queries, width, width, c)
        with_queries = held + queries * size
        yield from _dense(projections, with_queries, keys, width, 2 * width, c)
    kept = (3 if queries == keys else 2) * keys * size  # the values are a view of it
    separate = 0 if queries == keys else queries * size
    if norm:
        yield from _layer_norm(projections, held + kept + separate, queries * width, c)
        normed = held + kept + queries * size
        yield from _layer_norm(projections, normed, keys * width, c)
        separate = (queries + keys) * size
    if relative:
        before = held + kept + separate
        held += yield from _relative_keys(before, queries, keys, c)
    if turns:  # in float32: the products with cosines and sines, and their sum
        for tokens in (keys, queries):
            separate -= tokens * size if norm else 0  # read for the last time
            turning = 3 * tokens * width * FLOAT32
            yield Operation(projections, held + kept + separate + turning)
            separate += tokens * size
        separate = (queries + keys) * size
    heads = heads or c.num_heads
    scores = part or "attention_scores"
    yield from _attend(held, kept, separate, queries, keys, heads, c, scores)
    if sub_norm:
        yield from _layer_norm(projections, held, queries * width, c, kept=False)
    yield from _dense(projections, held, queries, width, width, c)


def _relative_keys(held, queries, keys, c):
    """Products of queries and embeddings of offsets; returns the bytes of the logits."""
    prefix, part, number = num_prefix(c), "attention_scores", c.number_bytes
    patches = keys - prefix
    logits = c.num_heads * queries * keys * number
    scaled = queries * c.hidden_dim * number
    if prefix:
        yield Operation(part, held + scaled, 3 * queries * c.hidden_dim)
    if queries > prefix:
        offsets = 2 * patches * patches * c.num_heads * number  # their shift is a view
        products = 2 * patches * patches * c.hidden_dim
        yield Operation(part, held + scaled + offsets, products)
        held += offsets + (patches * keys * c.num_heads * number if prefix else 0)
    yield Operation(part, held + logits)
    return logits


def _attend(held, kept, separate, queries, keys, heads, c, part):
    """Scores of queries and keys, and the weighted sums of values.

    `kept` is the bytes of the tensor that holds the values, `separate` those of the
    tensors that hold queries and keys, if they are others.
    """
    products = queries * keys * c.hidden_dim
    if c.flash_attention:
        outputs = queries * c.hidden_dim * c.number_bytes
        yield Operation(part, held + kept + separate + outputs, 2 * products)
        return
    query, key = (number * c.hidden_dim * FLOAT32 for number in (queries, keys))
    if c.number_bytes != FLOAT32:
        yield Operation(part, held + kept + query + 2 * key)
        kept = key  # the values in float32
    scores = heads * queries * keys * FLOAT32
    yield Operation(part, held + kept + query + 2 * key)  # scaled
    yield Operation(part, held + kept + query + key + scores, products)
    yield Operation(part, held + kept + 2 * scores)  # softmax
    yield Operation(part, held + kept + key + scores)  # the values, copied
    yield Operation(part, held + query + key + scores, products)


def _mlp(part, held, tokens, mlp_dim, activation, c, *, sub_norm=False):
    halves = 2 if activation in GATED else 1
    hidden = tokens * mlp_dim * c.number_bytes
    yield from _dense(part, held, tokens, c.hidden_dim, halves * mlp_dim, c)
    # GELU reads one tensor and writes one; the others also read their factors.
    factors = {"gelu": 0, "quick_gelu": 1, "swiglu": 2, "geglu": 2}[activation]
    yield Operation(part, held + (2 + factors) * hidden)
    if sub_norm:
        yield from _layer_norm(part, held, tokens * mlp_dim, c, kept=False)
    yield from _dense(part, held, tokens, mlp_dim, c.hidden_dim, c)


def _pool(tokens, prefix, c):
    width, number = c.hidden_dim, c.number_bytes
    if c.pooling is None:
        return
    pooled = tokens if c.pooling_prefix else tokens - prefix
    if c.pooling in ("gap", "token_gap"):
        wide = number if number == FLOAT32 else number + FLOAT32
        yield Operation("pooling", (tokens * wide + FLOAT32) * width)
    if c.pooling == "token_gap":
        yield Operation("pooling", (tokens + 3) * width * number)
        width *= 2
    elif c.pooling == "map":
        heads = c.pooling_num_heads
        yield from _attention(0, 1, pooled, c, part="pooling", heads=heads)
        yield from _layer_norm("pooling", width * number, width, c)
        activation = "gelu" if c.mlp in GATED else c.mlp
        mlp_dim = c.pooling_mlp_dim
        yield from _mlp("pooling", width * number, 1, mlp_dim, activation, c)
    elif c.pooling == "query":
        yield from _dense("pooling", 0, pooled, width, 2 * width, c)
        kept, heads = 2 * pooled * width * number, c.pooling_num_heads
        yield from _attend(0, kept, 0, 1, pooled, heads, c, "pooling")
        yield from _dense("pooling", 0, 1, width, width, c)
    if c.fc_norm:
        yield from _layer_norm("fc_norm", 0, width, c, kept=False)
    if c.representation_size:
        yield from _dense("pre_logits", 0, 1, width, c.representation_size, c)
        width = c.representation_size
    yield from head_operations(width, c)
    if c.distilled and c.classes:
        yield from head_operations(width, c)
