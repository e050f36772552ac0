"""A model of the explorer: images that it opens, and rows of their attention maps."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.analysis import iterate_attention, token_grid
from keras_vit.analysis.summary import class_map_kind
from keras_vit.data import load_images
from keras_vit.data.images import decode_image
from keras_vit.data.pipeline import evaluation_part
from keras_vit.explorer.overlay import enlarged
from keras_vit.explorer.view import View
from keras_vit.runs.explanation import Explainer, Explanation, load_explainer
from keras_vit.runs.given_images import unusual_values

MOST_BYTES = 256 * 2**20  # of attention maps that are kept for a model


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image as a model sees it.

    Attributes:
        name: name of the file.
        inputs: float32 array of one image, as the model takes it.
        picture: uint8 array (height, width, 3), the same to look at, enlarged.
        view: the patches in it.
        explanation: prediction, rollout, and the map of the pooling.
        remark: why the values of the image look wrong, or `""`.
    """

    name: str
    inputs: np.ndarray
    picture: np.ndarray
    view: View
    explanation: Explanation
    remark: str = ""


class ExploredModel:
    """A model, and the attention maps of the image about which it was asked last.

    Args:
        name: name of the model.
        explainer: the model with the preparation of its images, see
            `runs.load_explainer`.
        most_bytes: int, size of the maps that are kept; those of one block are, whatever
            their size.
    """

    def __init__(self, name: str, explainer: Explainer, most_bytes: int = MOST_BYTES):
        self.name = name
        self.explainer = explainer
        self.most_bytes = most_bytes
        fields = explainer.model.arguments
        self.num_blocks: int = fields["num_layers"]
        self.num_heads: int = fields["num_heads"]
        self.image_size: tuple[int, int] = explainer.pipeline.image_size
        self.class_map_kind: str = class_map_kind(explainer.model)
        self._image: OpenedImage | None = None
        self._maps: dict[int, np.ndarray] = {}

    def open(self, path: str | os.PathLike[str]) -> OpenedImage:
        """Reads an image, predicts it, and computes what the model's head reads.

        Args:
            path: path of a file.

        Raises:
            ValueError: if it cannot be decoded.
            OSError: if it cannot be read.
        """
        pipeline, name = self.explainer.pipeline, os.path.basename(path)
        image = decode_image(path, name, pipeline.channels, pipeline.reading)
        inputs = load_images([path], pipeline)
        (explanation,), _ = self.explainer.explain_pixels(inputs)
        grid = token_grid(self.explainer.model, inputs)
        part = evaluation_part(image.shape, pipeline)
        return OpenedImage(
            name,
            inputs,
            enlarged(explanation.picture),
            View(grid, pipeline.image_size, part),
            explanation,
            unusual_values([(os.fspath(path), "")], pipeline),
        )

    @property
    def prefix_names(self) -> list[str]:
        """Names of the tokens before the patches."""
        fields = self.explainer.model.arguments
        layers = {layer.name for layer in self.explainer.model.layers}
        names = ["class token"] if "class_token" in layers else []
        names += ["distillation token"] if fields["distilled"] else []
        return names + [f"register {i}" for i in range(fields["num_registers"])]

    def row(
        self, image: OpenedImage, block: int, head: int | None, token: int
    ) -> np.ndarray:
        """The attention of a token to every token, float32 (tokens,).

        Args:
            image: the image.
            block: number of the block.
            head: number of the head; `None` for the mean of the heads.
            token: number of the token that reads.
        """
        maps = self._maps_of(image, block)  # (heads, tokens, tokens)
        return maps[:, token].mean(axis=0) if head is None else maps[head, token]

    def _maps_of(self, image, block):
        if image is not self._image:
            self._image, self._maps = image, {}
        if block not in self._maps:
            size = self.num_heads * image.view.grid.num_tokens**2 * 4
            room = max(1, self.most_bytes // size)
            blocks = None if room >= self.num_blocks else block
            while len(self._maps) >= room:
                del self._maps[next(iter(self._maps))]  # the oldest
            for number, _, maps in iterate_attention(
                self.explainer.model, image.inputs, blocks
            ):
                self._maps[number] = maps[0]
        return self._maps[block]


def explored_model(
    source: str | os.PathLike[str], name: str | None = None, **options: Any
) -> ExploredModel:
    """Loads the model of a run or of any other checkpoint.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        name: name of the model; `None` for the end of `source`.
        **options: arguments of `runs.load_explainer`, such as `class_index`.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if the model has no attention, or an argument is out of range.
    """
    return ExploredModel(name or os.fspath(source), load_explainer(source, **options))
