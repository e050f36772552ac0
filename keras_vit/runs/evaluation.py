"""`evaluate`: the accuracy of a run or checkpoint on images that it was not trained on."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from keras_vit.data import ImageData
from keras_vit.data.labels import UnknownClassError
from keras_vit.log import log
from keras_vit.runs.classifier import Classifier, load_classifier
from keras_vit.runs.folder import RunFolder
from keras_vit.runs.image_digests import MatchedImages, match_images
from keras_vit.runs.images import absolute_source, load_data
from keras_vit.runs.options import READING
from keras_vit.runs.results import UNSEEN, EvaluationResult

SPLITS = ("train", "validation", "test")
# Only splits that the data has: a split drawn here could hold images trained on.
UNDIVIDED = {"validation_split": 0.0, "test_split": 0.0}


def evaluate(
    source: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    batch_size: int = 32,
    by_order: bool = False,
    merged_tokens: int | tuple[int, ...] | None = None,
    verbose: int = 0,
    say: Callable[[str], None] = log.warning,
    **options: Any,
) -> EvaluationResult:
    """Evaluates a run or any other classifier, as `keras-vit evaluate` does.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        data: a folder of images, a CSV file, or the name of a data set; `None` for the
            run's own data. Images that the run knows by their content are in the split
            that they had in training, wherever they lie now.
        split: `"train"`, `"validation"` or `"test"`; `None` for test, or else validation;
            of data other than the run's all images that it was not trained on.
        batch_size: images in a batch.
        by_order: whether to match the classes of `data` with the model's outputs by their
            order instead of their names.
        merged_tokens: as in `VisionTransformer`.
        verbose: as in `predict` of Keras.
        say: called with a sentence where images are left out or may have been trained
            on; by default it goes to the log as a warning.
        **options: arguments of `keras_vit.data.load`, such as `label_column`.

    Returns:
        An `EvaluationResult`.

    Raises:
        FileNotFoundError: if the checkpoint or the images do not exist.
        ValueError: if there is no `data`, the split does not exist or holds only images
            that were trained on, or the model does not know one of the classes.

    Example:

    >>> result = keras_vit.runs.evaluate("runs/flowers")
    >>> result.evaluation.accuracy, result.evaluation.interval
    """
    overrides = {} if merged_tokens is None else {"merged_tokens": merged_tokens}
    classifier = load_classifier(source, batch_size, **overrides)
    if by_order:
        classifier = replace(classifier, class_names=None)
    options = {name: value for name, value in options.items() if value is not None}
    try:
        images, split = _images(source, data, split, options, classifier, say)
        evaluation = classifier.evaluate(images, split, verbose=verbose)
    except UnknownClassError as error:
        raise ValueError(
            f"{error}. If the data's classes are the model's, in the same order, pass "
            "`by_order=True`."
        ) from error
    return EvaluationResult(classifier, images, split, evaluation)


def _images(source, data, split, options, classifier: Classifier, say):
    """The images, and the split of them to evaluate."""
    # Read as in training, unless an option says otherwise.
    reading = {name: getattr(classifier.pipeline, name) for name in READING}
    options = {k: v for k, v in reading.items() if v} | options
    if classifier.class_names is not None:
        options["class_names"] = classifier.class_names
    if data is not None:
        data = absolute_source(data)
    if classifier.run is not None:
        return _images_for_run(classifier.run, data, split, options, say)
    if data is None:
        raise ValueError(
            "A checkpoint that is not in the folder of a run says nothing of images. "
            f"Received: {os.fspath(source)!r}. Give `data`."
        )
    images = load_data({"source": data, **options, **UNDIVIDED})
    return images, _own_split(images, split)


def _images_for_run(
    run: RunFolder,
    data: str | None,
    split: str | None,
    options: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[ImageData, str]:
    """The run's images, which may have moved or changed since, or other images."""
    config = run.config()["data"]
    trained_with, source = config["arguments"], data or config["arguments"]["source"]
    is_other = source != trained_with["source"]
    given = {"source": source, **options}
    try:
        images = load_data({**trained_with, **given})
    except (ValueError, FileNotFoundError):
        if not is_other:
            raise
        trained_with = {}  # other data has other splits or columns
    else:
        if images.fingerprint == config["fingerprint"]:
            if is_other:
                say("these are the images of the training, so its splits are used.")
            return images, split or _default_split(images.splits)
    images = load_data({**trained_with, **given, **UNDIVIDED})
    digests = run.digests()
    matched = match_images(images, digests) if digests else None
    if matched is not None and matched.known:
        return _matched_split(images, split, matched, digests, is_other, say)
    if not is_other:
        _warn_of_changes(images, split, say)
    elif digests is None:
        say(
            "the run does not tell which images it was trained on, so there may be some "
            "of them among these."
        )
    return images, _own_split(images, split)


def _own_split(data: ImageData, split: str | None) -> str:
    """The requested split, or the default one, of those that the data itself has."""
    split = split or _default_split(data.splits)
    if split not in data.splits:
        raise ValueError(
            f"{data.name!r} has no split {split!r} of its own, and a split drawn here "
            "could hold images that the model was trained on. Leave `split` out, or give "
            "the folder or file of that split alone as `data`."
        )
    return split


def _default_split(splits) -> str:
    return next(split for split in reversed(SPLITS) if split in splits)


def _warn_of_changes(data, split, say):
    """Says that the run's images have changed; an error if all may be trained on."""
    default = _default_split(data.splits)
    if default == "train" and split != "train":
        raise ValueError(
            "The images have changed since the training, and nothing tells which of them "
            "it was trained on. Give images that it has not seen as `data`."
        )
    say(
        "the images have changed since the training, so some that were trained on may be "
        f"in the {split or default} split."
    )


def _matched_split(
    data: ImageData,
    split: str | None,
    matched: MatchedImages,
    digests: Mapping[str, Any],
    is_other: bool,
    say: Callable[[str], None],
) -> tuple[ImageData, str]:
    """A split without images that were trained on, of data that the run knows in part."""
    if split is None and not is_other:
        split = _default_split({*digests, *data.splits})
    if split == "train" or (split is not None and split not in data.splits):
        return _split_as_trained(matched, split, digests, say)
    own = split or _default_split(data.splits)
    count = len(data.splits[own])
    if own not in matched.untrained.splits:
        raise ValueError(
            f"The model was trained on all {count} images of {data.name!r}. Give others, "
            "or split='train' to score these."
        )
    if matched.trained[own]:
        say(
            f"{matched.trained[own]} of the {count} images are left out, as the model was "
            "trained on them."
        )
    images = matched.untrained.splits[own]
    if own == "train":  # all images, without those of the run's own training split
        own = UNSEEN if matched.trained[own] else own
        return replace(data, splits={own: images}), own
    return replace(data, splits={**data.splits, own: images}), own


def _split_as_trained(matched, split, digests, say) -> tuple[ImageData, str]:
    """The run's split, of images some of which may be missing or new."""
    if split not in digests or split not in matched.data.splits:
        raise ValueError(
            f"No image of the training's {split} split is there. Leave `split` out, or "
            "give a folder or file that holds them as `data`."
        )
    say(
        "the images have changed since the training. Evaluated are those of its "
        f"{split} split; {matched.missing[split]} of its {len(digests[split])} are not "
        f"there, and {matched.new} that it did not know are left out."
    )
    return matched.data, split
