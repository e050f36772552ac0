"""Token merging: of the patch tokens that are most alike, each pair becomes one."""

import keras
from keras import ops


def count_merged(number: int, tokens: int, num_prefix: int) -> int:
    """How many of so many tokens are merged into others, where `number` is asked for: half
    of those after the prefix at most.
    """
    return min(number, (tokens - num_prefix) // 2)


def merge_tokens(tokens, keys, number: int, *, num_prefix: int = 0, sizes=None):
    """Merges tokens into those that are most like them, by an average.

    Source: *Token Merging: Your ViT But Faster* (arXiv 2210.09461), section 3 and the
    listing in appendix D: bipartite soft matching. The tokens at even places of the
    sequence are one set, those at odd places the other. Each token of the first draws an
    edge to that of the second whose key has the largest cosine similarity with its own;
    the tokens of the `number` strongest edges are merged into those at their ends, each
    weighed by the patches that it stands for. The result has the rest of the first set,
    then the second, both in their order.

    Args:
        tokens: (batch, tokens, hidden_dim).
        keys: (batch, tokens, head_dim), what tells how alike two tokens are. No gradient
            flows through the choice.
        number: int, of tokens that are merged into others, see `count_merged`.
        num_prefix: int, number of tokens before the patches (class token, registers),
            which stay as they are.
        sizes: int32 (batch, tokens), of how many tokens each is the average; `None` where
            nothing has been merged yet.

    Returns:
        Tokens (batch, tokens - number, hidden_dim), and their sizes (batch, tokens -
        number), int32.
    """
    number = count_merged(number, tokens.shape[1], num_prefix)
    if sizes is None:
        sizes = ops.ones_like(tokens[:, :, 0], "int32")
    if not number:
        return tokens, sizes
    sizes = ops.cast(sizes, "float32")
    first, second = _sets(num_prefix)
    merged, kept, ends = _match(keys[:, first], keys[:, second], number)

    order = ops.concatenate([merged, kept], axis=1)  # both sets by one gather
    sources = _at(tokens[:, first], order)
    source_sizes = _at(sizes[:, first], order)
    targets, target_sizes = tokens[:, second], sizes[:, second]

    edges = ops.one_hot(ends, targets.shape[1]) * source_sizes[:, :number, None]
    new_sizes = target_sizes + ops.sum(edges, axis=1)
    shares = ops.cast(edges / new_sizes[:, None], tokens.dtype)
    own_shares = ops.cast(target_sizes / new_sizes, tokens.dtype)
    added = ops.einsum("bst,bsd->btd", shares, sources[:, :number])
    targets = targets * own_shares[..., None] + added

    tokens = [tokens[:, :num_prefix], sources[:, number:], targets]
    sizes = [sizes[:, :num_prefix], source_sizes[:, number:], new_sizes]
    return (
        ops.concatenate(tokens, axis=1),
        ops.cast(ops.concatenate(sizes, axis=1), "int32"),
    )


def _sets(num_prefix):
    """Where the tokens of both sets are: after the prefix, at even and at odd places."""
    even = num_prefix + num_prefix % 2
    odd = num_prefix + (num_prefix + 1) % 2
    return slice(even, None, 2), slice(odd, None, 2)


def _match(first, second, number):
    """Places of the tokens of the first set that are merged, and of the others, (batch,
    …) each; and where in the second set those that are merged end.
    """
    first, second = (
        ops.normalize(ops.cast(ops.stop_gradient(keys), "float32"), axis=-1)
        for keys in (first, second)
    )
    similarity = ops.einsum("bsk,btk->bst", first, second)
    weakest_last = ops.argsort(-ops.max(similarity, axis=-1), axis=-1)
    merged = weakest_last[:, :number]
    kept = ops.sort(weakest_last[:, number:], axis=-1)
    return merged, kept, _at(ops.argmax(similarity, axis=-1), merged)


def _at(x, places):
    """Of (batch, n) or (batch, n, width), what is at (batch, k) places of each."""
    places = places[..., None] if len(x.shape) == 3 else places
    if keras.backend.backend() != "torch":
        return ops.take_along_axis(x, places, axis=1)
    # `torch.export` takes the batch size for a constant where Keras takes along an axis.
    places = places.long()
    return x.gather(1, places.expand(-1, -1, x.shape[-1]) if x.ndim == 3 else places)
