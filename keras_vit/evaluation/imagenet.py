"""ImageNet's test sets: validation images, ReaL, V2, A, R and Sketch."""

import functools
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit import arguments, extras
from keras_vit.data import ImageData, Pipeline, load
from keras_vit.data.listing import Listing
from keras_vit.data.records import StoredLabel
from keras_vit.data.sources import ImageFiles
from keras_vit.data.tfds import prepared_builder, records_of
from keras_vit.data.threads import map_indices
from keras_vit.download.cache import fetch
from keras_vit.download.digests import Digest, damage_error, mismatch
from keras_vit.evaluation.checks import check_finite

NUM_CLASSES = 1000
REAL_LABELS = (
    "https://raw.githubusercontent.com/google-research/reassessed-imagenet/master/real.json"
)
# As TensorFlow Datasets 4.9 states it.
REAL_SHA256 = "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b"
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A published set of images to test classifiers of ImageNet-1k on.

    Attributes:
        name: its name here, as in `Preset.scores`.
        title: its name in print.
        tfds: its name in TensorFlow Datasets.
        split: its split there.
        folders: names of the folders of classes in its archive: `"wordnet"` for WordNet
            ids, `"number"` for the index of the class.
        num_images: number of images.
        num_classes: number of classes that have images. With fewer than 1,000 a model
            chooses among these alone.
        has_several_labels: whether an image may have several right labels, or none.
        paper: title and arXiv identifier.
    """

    __test__ = False  # pytest would take the class for tests

    name: str
    title: str
    tfds: str
    split: str
    num_images: int = 50_000
    folders: str = "wordnet"
    num_classes: int = NUM_CLASSES
    has_several_labels: bool = False
    paper: str


TEST_SETS: Mapping[str, TestSet] = {
    row.name: row
    for row in (
        TestSet(
            name="imagenet2012",
            title="ImageNet",
            tfds="imagenet2012",
            split="validation",
            paper="ImageNet Large Scale Visual Recognition Challenge (1409.0575)",
        ),
        TestSet(
            name="imagenet_real",
            title="ImageNet-ReaL",
            tfds="imagenet2012_real",
            split="validation",
            has_several_labels=True,
            paper="Are we done with ImageNet? (2006.07159)",
        ),
        TestSet(
            name="imagenet_v2",
            title="ImageNet-V2",
            tfds="imagenet_v2/matched-frequency",
            split="test",
            num_images=10_000,
            folders="number",
            paper="Do ImageNet Classifiers Generalize to ImageNet? (1902.10811)",
        ),
        TestSet(
            name="imagenet_a",
            title="ImageNet-A",
            tfds="imagenet_a",
            split="test",
            num_images=7_500,
            num_classes=200,
            paper="Natural Adversarial Examples (1907.07174)",
        ),
        TestSet(
            name="imagenet_r",
            title="ImageNet-R",
            tfds="imagenet_r",
            split="test",
            num_images=30_000,
            num_classes=200,
            paper="The Many Faces of Robustness (2006.16241)",
        ),
        TestSet(
            name="imagenet_sketch",
            title="ImageNet-Sketch",
            tfds="imagenet_sketch",
            split="test",
            num_images=50_889,
            paper="Learning Robust Global Representations by Penalizing Local Predictive "
            "Power (1905.13549)",
        ),
    )
}


@dataclass(frozen=True, eq=False)
class LabeledTestSet:
    """The images of a test set, with their right labels.

    Attributes:
        test_set: the row of the table.
        data: the images, all of them in the split `"train"`.
        labels: the right labels of each image, indices of ImageNet's 1,000 classes.
        classes: int (n,), the classes among which a model chooses.
    """

    test_set: TestSet
    data: ImageData
    labels: Sequence[Sequence[int]]
    classes: np.ndarray

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Class with the highest score among the classes of the set, int (images,).

        Args:
            scores: float (images, 1000), logits or probabilities.

        Raises:
            ValueError: if the shape is another one, or a score is NaN or infinity.
        """
        scores = np.asarray(scores)
        if scores.shape != (len(self.labels), NUM_CLASSES):
            raise ValueError(
                f"{self.test_set.title} takes scores of shape (images, {NUM_CLASSES}), "
                f"here ({len(self.labels)}, {NUM_CLASSES}). Received: {scores.shape}"
            )
        check_finite(scores, "scores")
        return self.classes[np.argmax(scores[:, self.classes], axis=1)]


@functools.cache
def wordnet_ids() -> tuple[str, ...]:
    """WordNet id of each of the 1,000 classes of ImageNet-1k, in their published order.

    They are in the package TensorFlow Datasets, which is not imported.

    Raises:
        ImportError: if the `data` extra is missing.
    """
    found = importlib.util.find_spec("tensorflow_datasets")
    if found is None:
        extras.require("tensorflow_datasets", "`keras_vit.evaluation.imagenet`", "data")
    path = Path(found.submodule_search_locations[0], "datasets/imagenet2012/labels.txt")
    return tuple(path.read_text("utf-8").split())


def load_test_set(
    name: str,
    source: str | os.PathLike[str] | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    real_labels: str | os.PathLike[str] | None = None,
    **pipeline: object,
) -> LabeledTestSet:
    """Loads a test set of ImageNet from a folder or from TensorFlow Datasets.

    Args:
        name: a key of `TEST_SETS`.
        source: the folder of its images, as its archive has them: a folder for each
            class, named by its WordNet id or, for V2, its number. The images of ReaL are
            ImageNet's validation images under their own names,
            `ILSVRC2012_val_00000001.JPEG` …, with or without folders. `None` for the data
            set of TensorFlow Datasets.
        data_dir: folder of TensorFlow Datasets' data.
        real_labels: a copy of ReaL's `real.json`; `None` downloads it once.
        **pipeline: fields of `data.Pipeline`.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if classes are missing or unknown, an image of ReaL has another name,
            or `real.json` another content than the published one.
        RuntimeError: if TensorFlow Datasets cannot prepare the data set.
        ImportError: if the `data` extra is missing.
    """
    row = TEST_SETS[arguments.one_of(name, tuple(TEST_SETS), "test set")]
    if real_labels is not None and not row.has_several_labels:
        raise ValueError(
            f"`real_labels` belongs to 'imagenet_real'. Received: {name!r}. Leave it out."
        )
    if source is not None and not os.path.isdir(source):
        raise FileNotFoundError(
            f"`data` must be the folder of the images of {row.title}. Received: "
            f"{os.fspath(source)!r}, which is no folder. Leave it out for the data set "
            f"{row.tfds!r} of TensorFlow Datasets."
        )
    if source is None:
        return _from_tfds(row, data_dir, real_labels, Pipeline(**pipeline))
    if row.has_several_labels:
        return _real_images(row, Path(source), real_labels, Pipeline(**pipeline))
    numbers = tuple(map(str, range(NUM_CLASSES)))
    data = load(
        source,
        class_names=numbers if row.folders == "number" else wordnet_ids(),
        validation_split=0.0,
        duplicates="keep",  # a set is scored as it was published
        **pipeline,
    )
    return _labeled(row, _whole(data, row))


def _from_tfds(row: TestSet, data_dir, real_labels, pipeline: Pipeline) -> LabeledTestSet:
    if real_labels is not None:
        raise ValueError(
            f"The data set {row.tfds!r} of TensorFlow Datasets has labels of its own. "
            f"Received: real_labels={os.fspath(real_labels)!r}. Give the folder of the "
            "images with it."
        )
    builder = prepared_builder(row.tfds, data_dir)
    key = "original_label" if row.has_several_labels else "label"
    names = wordnet_ids()
    if tuple(builder.info.features[key].names) != names:
        raise ValueError(
            f"The classes of {builder.info.full_name!r} must be ImageNet's 1,000 WordNet "
            f"ids in their order. Received: {builder.info.features[key]}"
        )
    sources = records_of(builder, {"train": row.split}, "image", StoredLabel(key))
    data = ImageData(builder.info.full_name, names, sources, pipeline)
    if not row.has_several_labels:
        return _labeled(row, data)
    records = sources["train"]
    labels = map_indices(lambda i: records.values(i)["real_label"], len(records))
    return LabeledTestSet(row, data, labels, np.arange(NUM_CLASSES))


def _whole(data: ImageData, row: TestSet) -> ImageData:
    """Refuses a folder that holds more than the test set."""
    if set(data.splits) != {"train"}:
        raise ValueError(
            f"The folder must hold the classes of {row.title} and nothing else. Received: "
            f"{data.name!r} with the splits {', '.join(data.splits)}. Give the folder of "
            "one of them."
        )
    return data


def _labeled(row: TestSet, data: ImageData) -> LabeledTestSet:
    labels = data.labels("train")
    present = np.unique(labels)
    if len(present) != row.num_classes:
        raise ValueError(
            f"{row.title} has images of {row.num_classes:,} classes, and its accuracy is "
            f"that of all of them. Received: {data.name!r} with {len(present):,} classes. "
            "Give the whole set."
        )
    return LabeledTestSet(row, data, labels[:, None], present)


def _real_images(row, root: Path, real_labels, pipeline: Pipeline) -> LabeledTestSet:
    paths = tuple(Listing().images_below(root))
    if not paths:
        raise ValueError(f"There is no image in {os.fspath(root)!r}.")
    right = _right_labels(real_labels)
    labels = [right[_number(path, len(right)) - 1] for path in paths]
    files = ImageFiles(paths, np.zeros(len(paths), "int32"), root)
    data = ImageData(root.name, wordnet_ids(), {"train": files}, pipeline)
    return LabeledTestSet(row, data, labels, np.arange(NUM_CLASSES))


def _number(path: Path, count: int) -> int:
    """Number of a validation image, from 1, in its name."""
    found = _NUMBER.search(path.name)
    number = int(found[1]) if found else 0
    if not 1 <= number <= count:
        raise ValueError(
            "ReaL's labels are found by the names of ImageNet's validation images, "
            f"ILSVRC2012_val_00000001.JPEG to {count:08d}. Received: {os.fspath(path)!r}"
        )
    return number


def _right_labels(path: str | os.PathLike[str] | None) -> list[list[int]]:
    """The right labels of each of ImageNet's validation images."""
    if path is None:
        path = fetch(REAL_LABELS)
        expected = Digest("TensorFlow Datasets", "sha256", REAL_SHA256)
        if wrong := mismatch(path, [expected]):
            raise damage_error(wrong, path, f"{path}.sha256")
    try:
        labels = json.loads(Path(path).read_bytes())
    except ValueError:  # no JSON, or no text
        labels = None
    if not isinstance(labels, list) or not all(map(_are_classes, labels)):
        raise ValueError(
            "ReaL's `real.json` is a list with a list of classes, from 0 to "
            f"{NUM_CLASSES - 1}, for each image. Received: {os.fspath(path)!r}"
        )
    return labels


def _are_classes(labels) -> bool:
    return isinstance(labels, list) and all(
        isinstance(label, int) and 0 <= label < NUM_CLASSES for label in labels
    )
