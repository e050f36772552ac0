"""`evaluate_representation`: a model's features, judged by simple classifiers."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from keras_vit import arguments
from keras_vit.data import ImageData
from keras_vit.evaluation import (
    Features,
    ProtocolResult,
    extract_features,
    few_shot,
    linear_probe,
    nearest_neighbors,
)
from keras_vit.log import log
from keras_vit.runs.classifier import load_model
from keras_vit.runs.evaluation import SPLITS, UNDIVIDED
from keras_vit.runs.image_digests import match_images
from keras_vit.runs.images import absolute_source, load_data
from keras_vit.runs.options import READING

PROTOCOLS: Mapping[str, Callable[..., ProtocolResult]] = {
    "few-shot": few_shot,
    "knn": nearest_neighbors,
    "linear": linear_probe,
}
TEST_SPLIT = 0.2  # drawn from images that have no split of their own


@dataclass(frozen=True, eq=False)
class RepresentationResult:
    """The result of a protocol on the features of a data set.

    Attributes:
        result: accuracies, predictions, intervals.
        features: `Features` of each split that was used, by its name.
        data: the images.
        test_split: name of the split that was predicted.
        source: the model as it was given.
        layer: the layer whose outputs are the features.
    """

    result: ProtocolResult
    features: Mapping[str, Features]
    data: ImageData
    test_split: str
    source: str
    layer: str

    def summary(self) -> dict[str, Any]:
        """The numbers by name, for JSON."""
        sizes = {split: len(found.labels) for split, found in self.features.items()}
        return {
            "model": self.source,
            "data": self.data.name,
            "layer": self.layer,
            "width": int(self.features["train"].features.shape[1]),
            "classes": self.data.num_classes,
            "images": sizes,
            "test_split": self.test_split,
            **self.result.summary(),
        }

    def __str__(self) -> str:
        sizes = ", ".join(f"{len(f.labels):,} {name}" for name, f in self.features.items())
        width = self.features["train"].features.shape[1]
        return (
            f"{self.data.name}: {self.data.num_classes} classes; images: {sizes}; "
            f"features: {self.layer}, {width} numbers\n{self.result}"
        )


def evaluate_representation(
    source: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    protocol: str,
    settings: Mapping[str, Any] | None = None,
    layer: str = "pooled",
    split: str | None = None,
    test_split: float | None = None,
    batch_size: int = 32,
    cache_dir: str | os.PathLike[str] | None = None,
    merged_tokens: int | tuple[int, ...] | None = None,
    verbose: int = 0,
    say: Callable[[str], None] = log.warning,
    **options: Any,
) -> RepresentationResult:
    """Judges the features of a model, as `keras-vit evaluate --protocol` does.

    The model is not trained: simple classifiers on its features of the training images
    predict the test images. Images are prepared as the model's preset or run says.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes,
            also without a head.
        data: a folder of images, a CSV file, or the name of a data set; `None` for the
            run's own data, in its splits.
        protocol: `"few-shot"`, `"knn"` or `"linear"`, the functions `few_shot`,
            `nearest_neighbors` and `linear_probe` of `keras_vit.evaluation`.
        settings: keyword arguments of that function, such as `{"shots": (1, 5)}`. A linear
            probe chooses on the data's validation split, if it has one that is not tested.
        layer: `"pooled"`, which a head reads, or the name of a layer: `"pre_logits"` where
            the model has one, as big_vision judges these.
        split: split to predict; `None` for test, or else validation.
        test_split: share of the images of each class that is drawn for the test where
            `data` has a training split alone; `None` for 0.2.
        batch_size: images in a batch.
        cache_dir: folder in which features stay, as in
            `keras_vit.evaluation.extract_features`.
        merged_tokens: as in `VisionTransformer`.
        verbose: as in `predict` of Keras.
        say: called with a sentence where the model was trained on images of the test; by
            default it goes to the log as a warning.
        **options: arguments of `keras_vit.data.load`, such as `label_column`.

    Returns:
        A `RepresentationResult`.

    Raises:
        FileNotFoundError: if the checkpoint or the images do not exist.
        ValueError: if there is no `data`, the split does not exist, or the protocol does
            not take one of the settings or the features.

    Example:

    >>> found = keras_vit.runs.evaluate_representation(
    ...     "ViTB16", "flowers", protocol="few-shot", settings={"seeds": (0, 1, 2)}
    ... )
    >>> print(found)
    """
    settings = check_settings(protocol, settings or {})
    overrides = {} if merged_tokens is None else {"merged_tokens": merged_tokens}
    model, pipeline, run = load_model(source, batch_size, **overrides)
    reading = {name: getattr(pipeline, name) for name in READING}
    reading = {name: value for name, value in reading.items() if value}
    options = reading | {name: v for name, v in options.items() if v is not None}
    if data is not None:
        images = _images(absolute_source(data), options, test_split)
    elif run is not None:
        images = _images_of(run, options, test_split)
    else:
        raise ValueError(
            "A checkpoint that is not in the folder of a run says nothing of images. "
            f"Received: {os.fspath(source)!r}. Give `data`."
        )
    split = _tested(images, split)
    if run is not None and data is not None:
        _say_what_is_known(run, images, split, say)
    splits = ["train", split]
    if protocol == "linear" and "validation" in images.splits:
        splits = list(dict.fromkeys(["train", "validation", split]))
    features = {
        name: extract_features(
            model,
            images,
            layer,
            cache_dir,
            split=name,
            batch_size=batch_size,
            verbose=verbose,
        )
        for name in splits
    }
    if len(splits) == 3:
        held_out = features["validation"]
        settings = {"validation_data": (held_out.features, held_out.labels), **settings}
    fit, test = features["train"], features[split]
    result = PROTOCOLS[protocol](
        fit.features, fit.labels, test.features, test.labels, **settings
    )
    return RepresentationResult(result, features, images, split, os.fspath(source), layer)


def check_settings(protocol: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a protocol.

    Raises:
        ValueError: if there is no such protocol, or it does not take one of the settings.
    """
    arguments.one_of(protocol, tuple(PROTOCOLS), "protocol")
    taken = {
        name: [
            p.name
            for p in signature(function).parameters.values()
            if p.kind == p.KEYWORD_ONLY
        ]
        for name, function in PROTOCOLS.items()
    }
    for name in settings:
        if name not in taken[protocol]:
            others = [repr(other) for other, names in taken.items() if name in names]
            of = f"which is one of protocol={' or '.join(others)}" if others else "unknown"
            raise ValueError(
                f"The protocol {protocol!r} takes {', '.join(taken[protocol])}. Received: "
                f"`{name}`, {of}"
            )
    return dict(settings)


def _images(source, options, test_split) -> ImageData:
    """Images in their own splits; a part is drawn for the test if they have none."""
    images = load_data({"source": source, **options, **UNDIVIDED})
    if set(images.splits) == {"train"}:
        share = TEST_SPLIT if test_split is None else test_split
        drawn = {**UNDIVIDED, "test_split": share}
        images = load_data({"source": source, **options, **drawn})
    return images


def _images_of(run, options, test_split) -> ImageData:
    """The images of a run in its splits; an error if they have changed."""
    if test_split is not None:
        raise ValueError(
            "The images of a run are in its own splits. Received: "
            f"test_split={test_split}. Leave it out, or give `data`."
        )
    config = run.config()["data"]
    images = load_data({**config["arguments"], **options})
    if images.fingerprint != config["fingerprint"]:
        raise ValueError(
            "The images have changed since the training, so the splits drawn now could "
            "test images that the model was trained on. Give `data`."
        )
    return images


def _tested(images, split) -> str:
    """The requested split, or test, or else validation."""
    found = [name for name in reversed(SPLITS) if name in images.splits and name != "train"]
    if not found or (split is not None and split not in found):
        raise ValueError(
            "`split` must be one that the data has beside 'train'. Received: "
            f"split={split!r}, {images.name!r} with the splits {', '.join(images.splits)}"
        )
    return split or found[0]


def _say_what_is_known(run, images, split, say) -> None:
    """Says how many images to test are among those that a run was trained on."""
    digests = run.digests()
    matched = match_images(images, digests) if digests else None
    if matched is None:
        say(
            "the run does not tell which images it was trained on: some may be tested here."
        )
    elif matched.trained[split]:
        say(
            f"the model was trained on {matched.trained[split]} of the "
            f"{len(images.splits[split])} images that are tested."
        )
