"""Attention weights and merged tokens, shown to an observer while layers compute them."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from keras_vit.layers import kernels
from keras_vit.types import Tensor


class Observer:
    """Sees what the attention layers compute inside `observed_by`.

    Layers ask for it as they run, so it sees no function that was compiled before.
    """

    def see_weights(self, weights: Tensor) -> Tensor:
        """Receives the weights of an attention; returns those that the layer applies.

        Args:
            weights: float32 at least, (batch, heads, queries, keys), after the softmax.
        """
        return weights

    def see_merging(self, merge: Callable[[Tensor], Tensor]) -> None:
        """Receives a merging of tokens.

        Args:
            merge: function of (batch, tokens, width) that averages those that are merged,
                and gives (batch, tokens that are left, width).
        """


# Of this thread: another may serve the model meanwhile. Not a `ContextVar`, which
# `torch.compile` does not trace.
class _Current(threading.local):
    observer: Observer | None = None


_CURRENT = _Current()


@contextlib.contextmanager
def observed_by(observer: Observer | None) -> Iterator[None]:
    """Shows the attention and the merging of all layers that run inside to an observer."""
    before, _CURRENT.observer = _CURRENT.observer, observer
    try:
        yield
    finally:
        _CURRENT.observer = before


def attend(
    *operands: Tensor,
    bias: Tensor | None = None,
    dropout: Callable | None = None,
    **options: Any,
) -> Tensor:
    """`kernels.attend`, whose weights the observer sees, and may change, if there is one.

    Dropout comes after it.
    """
    observer = _CURRENT.observer
    if observer is None:
        return kernels.attend(*operands, bias=bias, dropout=dropout, **options)
    return kernels.attend_in_steps(*operands, bias, observer.see_weights, dropout)


def show_merging(merge: Callable[[Tensor], Tensor]) -> None:
    """Shows a merging of tokens to the observer, if there is one."""
    if _CURRENT.observer is not None:
        _CURRENT.observer.see_merging(merge)
