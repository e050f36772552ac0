"""A record of what a block's attention does: its weights, and the tokens that it merges."""

from collections.abc import Callable

import numpy as np
from keras import ops

from keras_vit.layers.observation import Observer
from keras_vit.types import Tensor


class Recorder(Observer):
    """Keeps the weights of the attention that it sees last, and the merging after it.

    Args:
        num_queries: int, number of the first queries, whose weights alone are kept;
            `None` for all.
    """

    def __init__(self, num_queries: int | None = None):
        self.num_queries = num_queries
        self.weights: np.ndarray | None = None
        self.merging: Callable[[Tensor], Tensor] | None = None

    def see_weights(self, weights: Tensor) -> Tensor:
        kept = ops.convert_to_numpy(weights[:, :, : self.num_queries])
        # An array that shares its memory with a tensor would hold every row.
        copy = None if self.num_queries is None else True
        self.weights = np.array(kept, "float32", copy=copy)
        return weights

    def see_merging(self, merge: Callable[[Tensor], Tensor]) -> None:
        self.merging = merge

    def maps(self) -> np.ndarray:
        """The weights, (batch, heads, queries, keys).

        Raises:
            RuntimeError: if none was seen.
        """
        if self.weights is None:
            raise RuntimeError(
                "A function that was compiled before has computed the attention, and its "
                "weights are not known. Pass the model without torch.compile or "
                "tf.function around its layers."
            )
        return self.weights


class Places:
    """The token that stands for each place of the images, while blocks merge tokens.

    Args:
        batch: int, number of images.
        num_tokens: int, number of tokens before the first block.
    """

    def __init__(self, batch: int, num_tokens: int):
        self.owners: np.ndarray | None = None  # (batch, places), as soon as any is merged
        self._shape = (batch, num_tokens)

    def merge(self, merging: Callable[[Tensor], Tensor] | None) -> None:
        """Follows a merging, as `Recorder` keeps it; `None` for none."""
        if merging is None:
            return
        batch, places = self._shape
        if self.owners is None:
            self.owners = np.tile(np.arange(places, dtype="int32"), (batch, 1))
        members = self.owners[:, None] == np.arange(self.owners.max() + 1)[:, None]
        merged = merging(ops.convert_to_tensor(members.astype("float32")))
        # Each place has a share in one token alone.
        self.owners = ops.convert_to_numpy(ops.argmax(merged, axis=1)).astype("int32")

    def expand(self, maps: np.ndarray) -> np.ndarray:
        """Maps between tokens, as maps between places.

        Each place has the row of its token, and an equal share of the token's column.

        Args:
            maps: (batch, heads, queries, tokens), of which the queries are all tokens or
                some of the prefix, which stand for themselves.

        Returns:
            (batch, heads, queries, places).
        """
        if self.owners is None:
            return maps
        owners, tokens = self.owners, maps.shape[3]
        expanded = self.take(maps, axis=3)
        sizes = (owners[:, :, None] == owners[:, None]).sum(axis=1)  # (batch, places)
        expanded /= sizes[:, None, None].astype("float32")
        return self.take(expanded, axis=2) if maps.shape[2] == tokens else expanded

    def take(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Values of tokens along an axis, for each place; the first axis is the batch."""
        if self.owners is None:
            return values
        shape = [1] * values.ndim
        shape[0], shape[axis] = self.owners.shape
        return np.take_along_axis(values, self.owners.reshape(shape), axis)
