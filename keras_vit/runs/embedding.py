"""`embed`: a vector for each image of files, folders and the web, and the nearest ones."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.data import Pipeline
from keras_vit.evaluation import extract_features
from keras_vit.evaluation.checks import check_finite
from keras_vit.evaluation.unit_vectors import unit_vectors
from keras_vit.evaluation.vector_model import POOLED, vector_model
from keras_vit.log import log
from keras_vit.output_paths import check_file
from keras_vit.report.neighbors import Picture, write_neighbors
from keras_vit.runs.classifier import load_model
from keras_vit.runs.embedding_files import check_format, write_vectors
from keras_vit.runs.given_images import (
    expand,
    read_batches,
    read_picture,
    unusual_values,
)
from keras_vit.runs.results import model_name

Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
BLOCK = 2**16  # rows that are compared at a time


@dataclass(frozen=True)
class Neighbor:
    """An image that is near another one.

    Attributes:
        image: its path or address.
        similarity: cosine of the angle between their vectors, from -1 to 1.
    """

    image: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of images, and the images that could not be read.

    Attributes:
        images: path or address of each image.
        vectors: float32 (images, dim), in the same order.
        failed: (path or address, reason) of each image that cannot be read.
    """

    images: tuple[str, ...]
    vectors: np.ndarray
    failed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes names and vectors to a file.

        Args:
            path: ends in `.parquet` (columns `image`, and `vector`, a list of fixed size;
                needs pyarrow), `.npz` (arrays `images` and `vectors`) or `.csv` (columns
                `image`, `0`, `1`, …).
            overwrite: whether to replace a file.

        Raises:
            ValueError: if the ending is another one, there is something at the path, or
                a name cannot be written.
            ImportError: if pyarrow is missing.
        """
        check_output(path, overwrite)
        write_vectors(os.fspath(path), self.images, self.vectors)

    def nearest(self, vector: np.ndarray, top: int = 10) -> list[Neighbor]:
        """Finds the images whose vectors have the largest cosine with a vector.

        Args:
            vector: (dim,).
            top: number of images to find.

        Returns:
            The nearest images, the nearest one first; of equal ones that which comes first.

        Raises:
            ValueError: if the vector has another width, or is not finite.
        """
        arguments.positive(top, "top")
        query = np.asarray(vector, "float32")
        if query.shape != self.vectors.shape[1:] or not np.isfinite(query).all():
            raise ValueError(
                f"`vector` must be {self.vectors.shape[1]} finite numbers, as the vectors "
                f"of the images. Received: shape {query.shape}"
                f"{'' if np.isfinite(query).all() else ', with NaN or infinity'}"
            )
        query = unit_vectors(query[None])[0]
        parts = (self.vectors[i : i + BLOCK] for i in range(0, len(self), BLOCK))
        cosines = [unit_vectors(part) @ query for part in parts]
        cosines = np.concatenate(cosines) if cosines else np.empty(0)
        order = np.argsort(-cosines, kind="stable")[:top]
        return [Neighbor(self.images[i], float(cosines[i])) for i in order]


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model, the preparation of its images, and the layer that gives their vectors.

    Attributes:
        model: a model of this package.
        pipeline: prepares images for the model.
        layer: `"pooled"` or the name of a layer, see `evaluation.extract_features`.
        normalize: whether vectors have the length 1.
    """

    model: keras.Model
    pipeline: Pipeline
    layer: str = POOLED
    normalize: bool = False

    def embed(
        self,
        images: Images,
        *,
        verbose: int = 0,
        say: Callable[[str], None] = log.warning,
    ) -> Embeddings:
        """Computes the vectors of images; see `embed`.

        Raises:
            ValueError: if a vector holds NaN or infinity.
        """
        sources = expand(images, say)
        if reason := unusual_values(sources, self.pipeline):
            say(reason)
        names, failed = [], []
        batches = self._batches(sources, names, failed)
        first = next(batches, None)
        if first is None:
            dim = vector_model(self.model, self.layer).output_shape[-1]
            return Embeddings((), np.empty((0, dim), "float32"), tuple(failed))
        stream = _chained(first, batches)
        found = extract_features(self.model, stream, self.layer, verbose=verbose)
        vectors = found.features
        for i in range(0, len(vectors), BLOCK):
            check_finite(vectors[i : i + BLOCK], "vectors")
            if self.normalize:
                vectors[i : i + BLOCK] = unit_vectors(vectors[i : i + BLOCK])
        return Embeddings(tuple(names), vectors, tuple(failed))

    def _batches(self, sources, names, failed) -> Iterator[np.ndarray]:
        """Yields images that can be read, and notes their names and the others."""
        for batch in read_batches(sources, self.pipeline):
            failed += [(image.name, image.error) for image in batch if image.error]
            read = [image for image in batch if not image.error]
            if read:
                names += [image.name for image in read]
                yield np.stack([image.pixels for image in read])

    def write_page(
        self,
        path: str | os.PathLike[str],
        query: str,
        neighbors: Sequence[Neighbor],
        overwrite: bool = False,
    ) -> None:
        """Writes one HTML page with the pictures of an image and of its neighbors.

        Args:
            path: path of the page.
            query: path or address of the image.
            neighbors: of `Embeddings.nearest`.
            overwrite: whether to replace a file.

        Raises:
            ValueError: if there is something at the path, or it is a folder.
        """
        check_file(os.fspath(path), overwrite)
        write_neighbors(
            path,
            self._picture(query),
            [(self._picture(one.image), one.similarity) for one in neighbors],
            model=model_name(self.model.get_config()),
            layer=self.layer,
        )

    def _picture(self, name):
        try:
            return Picture(name, read_picture(name, self.pipeline))
        except (ValueError, OSError):  # it has changed since it was embedded
            return Picture(name, None)


def _chained(first, others) -> Iterator[np.ndarray]:
    yield first
    yield from others


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Checks that vectors can be written to a file, before they are computed.

    Raises:
        ValueError: if there is something at the path, or its ending is unknown.
        ImportError: if the package that writes such files is missing.
    """
    check_format(os.fspath(path))
    check_file(os.fspath(path), overwrite)


def load_embedder(
    source: str | os.PathLike[str],
    *,
    layer: str = POOLED,
    normalize: bool = False,
    batch_size: int = 32,
    value_range: tuple[float, float] | None = None,
    alpha: str | None = None,
    merged_tokens: int | tuple[int, ...] | None = None,
) -> Embedder:
    """Loads the model of a run or of any other checkpoint, to embed images.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        layer: `"pooled"`, the features that a head reads, or the name of a layer that
            gives a vector.
        normalize: whether vectors have the length 1.
        batch_size: images in a batch.
        value_range: values that are black and white in the files, as in
            `keras_vit.data.load`; `None` for those of the training.
        alpha: use of a fourth channel, as in `keras_vit.data.load`.
        merged_tokens: as in `VisionTransformer`.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if the layer gives no vector, or an argument is out of range.
    """
    arguments.positive(batch_size, "batch_size")
    overrides: dict[str, Any] = {}
    if merged_tokens is not None:
        overrides["merged_tokens"] = merged_tokens
    model, pipeline, _ = load_model(source, batch_size, **overrides)
    reading = {"value_range": value_range, "alpha": alpha}
    reading = {name: value for name, value in reading.items() if value}
    vector_model(model, layer)  # an unknown layer is told before images are read
    return Embedder(model, replace(pipeline, **reading), layer, normalize)


def embed(
    source: str | os.PathLike[str],
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    verbose: int = 0,
    say: Callable[[str], None] = log.warning,
    **options: Any,
) -> Embeddings:
    """Computes a vector for each image, as `keras-vit embed` does.

    An image that cannot be read is named in `failed`; the others follow.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        images: a file, a folder or an address (`https://…`), or several of them.
        verbose: as in `predict` of Keras; 1 shows images per second.
        say: called with a sentence where files are left out, or images would be all but
            black; by default it goes to the log as a warning.
        **options: arguments of `load_embedder`, such as `layer` and `normalize`.

    Returns:
        `Embeddings`.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if the layer gives no vector, a vector holds NaN or infinity, or an
            argument is out of range.

    Example:

    >>> found = keras_vit.runs.embed("runs/flowers", "photos", normalize=True)
    >>> found.save("photos.npz")
    >>> found.nearest(found.vectors[0], top=3)
    """
    return load_embedder(source, **options).embed(images, verbose=verbose, say=say)
