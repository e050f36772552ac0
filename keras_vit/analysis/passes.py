"""A pass of images through a Vision Transformer, block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.analysis.backend import without_gradients
from keras_vit.analysis.recorder import Places, Recorder
from keras_vit.layers.observation import Observer, observed_by
from keras_vit.models import VisionTransformer, token_features
from keras_vit.models.encoding import apply_block, blocks_of, final_norm
from keras_vit.models.fields import num_prefix
from keras_vit.models.sizes import grid_size, image_size_of
from keras_vit.types import Tensor

Embed = Callable[[Any], dict[str, Tensor]]  # of `models.encoding.embedding`


@dataclass(frozen=True)
class TokenGrid:
    """The grid of an image's patch tokens.

    Args:
        rows: int, number of patches from top to bottom.
        columns: int, number of patches from left to right.
        patch_size: (height, width) of a patch, in pixels of the image; in a hybrid those
            of a place in the ResNet's feature map.
        num_prefix: int, number of tokens before the patches (class token, distillation
            token, registers).
    """

    rows: int
    columns: int
    patch_size: tuple[int, int]
    num_prefix: int

    @property
    def num_tokens(self) -> int:
        """Number of tokens, those of the prefix included."""
        return self.num_prefix + self.rows * self.columns

    def maps(self, values: np.ndarray) -> np.ndarray:
        """Values of the patches, by row and column.

        Args:
            values: (…, tokens), those of the prefix first.

        Returns:
            (…, rows, columns).
        """
        patches = values[..., self.num_prefix :]
        return patches.reshape(*values.shape[:-1], self.rows, self.columns)


def transformer(model: keras.Model, purpose: str = "Attention") -> VisionTransformer:
    """Returns the model, if it is a `VisionTransformer`.

    Args:
        model: a model, or what was passed for one.
        purpose: what is asked of it, the subject of the error.

    Raises:
        ValueError: if it is another.
    """
    if isinstance(model, VisionTransformer):
        return model
    kind = type(model).__name__
    if not isinstance(model, keras.Model):
        way_out = "Pass the model itself."
    elif not model.built:
        way_out = "It is not built yet. Build a VisionTransformer and pass that."
    elif inner := [one.name for one in model.layers if isinstance(one, VisionTransformer)]:
        way_out = f"Pass the transformer inside it: model.get_layer({inner[0]!r})."
    else:
        way_out = "It has no attention that is known here."
    raise ValueError(
        f"{purpose} is that of a keras_vit.VisionTransformer. Received: model={kind}. "
        f"{way_out}"
    )


def image_batch(images: Any) -> Any:
    """Returns the images, if they are a batch.

    Raises:
        ValueError: if they are no array, have not four axes, or there is none.
    """
    if not hasattr(images, "shape"):
        raise ValueError(
            "`images` must be an array or a tensor (batch, height, width, channels). "
            f"Received: a {type(images).__name__}. np.stack makes one of several images."
        )
    shape = tuple(images.shape)
    if len(shape) != 4 or not shape[0]:
        raise ValueError(
            "`images` must be a batch of at least one image, (batch, height, width, "
            f"channels). Received: images of shape {shape}. A single image is images[None]."
        )
    return images


def block_numbers(
    model: VisionTransformer, blocks: int | Sequence[int] | None
) -> tuple[int, ...]:
    """The numbers of blocks, counted from 0.

    Args:
        model: the model.
        blocks: one or several numbers in rising order, negative ones from the end; `None`
            for all.

    Raises:
        ValueError: if there is no such block, or they do not rise.
    """
    total = model.fields.num_layers
    blocks = "all" if blocks is None else blocks
    numbers = token_features.block_numbers(blocks, total, "blocks")
    # The arrays are in the order of the blocks.
    rising = isinstance(blocks, str) or [n % total for n in np.ravel(blocks)] == numbers
    if not numbers or not rising:
        raise ValueError(
            "`blocks` must be at least one number, in rising order, each once. Received: "
            f"blocks={blocks!r} of {total} blocks"
        )
    return tuple(numbers)


def batches(images: Any, batch_size: int) -> list[slice]:
    """Slices of the images, `batch_size` at a time."""
    arguments.positive(batch_size, "batch_size")
    starts = range(0, len(image_batch(images)), batch_size)
    return [slice(start, min(start + batch_size, len(images))) for start in starts]


def token_grid(model: keras.Model, images: Any) -> TokenGrid:
    """The grid of the patch tokens that a model makes of images.

    Args:
        model: a `VisionTransformer`.
        images: a batch of images, as the model takes them.
    """
    model = transformer(model, "A grid of tokens")
    fields = model.arguments
    shape = image_batch(images).shape
    size = shape[1:3] if fields["data_format"] == "channels_last" else shape[2:4]
    rows, columns = grid_size(tuple(map(int, size)), fields["patch_size"], fields["stem"])
    patch = image_size_of((1, 1), fields["patch_size"], fields["stem"])
    return TokenGrid(rows, columns, patch, num_prefix(model.fields))


def pass_block(
    block: keras.layers.Layer, inputs: dict[str, Tensor], observer: Observer | None = None
) -> dict[str, Tensor]:
    """The inputs of the block after this one, with every token.

    Args:
        block: a `layers.EncoderBlock`.
        inputs: `"tokens"`, and where there are any `"sizes"` and `"positions"`.
        observer: sees the attention's weights, and the merging of tokens.
    """
    with observed_by(observer):
        tokens, sizes = apply_block(block, **inputs)
    inputs = {**inputs, "tokens": tokens}
    return inputs if sizes is None else {**inputs, "sizes": sizes}


class BatchPass:
    """A batch on its way through the blocks, without gradients.

    Args:
        embed: what `models.encoding.embedding` returned.
        images: the batch.
        grid: where its tokens are.
    """

    def __init__(self, embed: Embed, images: Any, grid: TokenGrid):
        with without_gradients():
            self.inputs: dict[str, Tensor] = embed(images)
        self.grid = grid
        self.places = Places(len(images), grid.num_tokens)

    def enter(
        self,
        block: keras.layers.Layer,
        is_watched: bool = False,
        num_queries: int | None = None,
    ) -> np.ndarray | None:
        """Passes a block.

        Args:
            block: the next block.
            is_watched: bool, whether its attention maps are wanted.
            num_queries: int, number of the first queries whose weights are kept; `None`
                for all.

        Returns:
            The attention maps between places, (batch, heads, queries, places); `None` if
            they are not wanted.
        """
        recorder = Recorder(num_queries)
        is_seen = is_watched or block.merged_tokens
        with without_gradients():  # in each call, not while a caller has the maps
            self.inputs = pass_block(block, self.inputs, recorder if is_seen else None)
        maps = self.places.expand(recorder.maps()) if is_watched else None
        self.places.merge(recorder.merging)
        return maps


def final_tokens(
    model: VisionTransformer, embed: Embed, images: Any, grid: TokenGrid
) -> tuple[Tensor, Tensor | None, Places]:
    """The tokens that the pooling reads, every one.

    Returns:
        Tokens (batch, tokens, hidden_dim), after `encoder_norm` if there is one; their
        sizes (batch, tokens), `None` if none is merged; and their places.
    """
    batch = BatchPass(embed, images, grid)
    for block in blocks_of(model):
        batch.enter(block)
    with without_gradients():
        tokens = final_norm(model, batch.inputs["tokens"])
    return tokens, batch.inputs.get("sizes"), batch.places
