"""Notes on images and classes in the files of other projects: reading and writing."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from keras_vit.log import log
from keras_vit.models.notes import NOTES, check_notes, without_empty
from keras_vit.weights.architecture import METADATA_KEY
from keras_vit.weights.files.tensor_file import parse_json

NOTES_KEY = "keras_vit.notes"  # of the metadata of our own .safetensors files
_FILTERS = {"bilinear": 2, "bicubic": 3}  # Pillow's


def notes_of(
    metadata: Mapping[str, str], config: Mapping[str, Any] | None, classes: int
) -> dict[str, Any]:
    """The notes on images and classes in a file and the JSON beside it.

    Class names of another number than the outputs belong to another head, and are left out.

    Args:
        metadata: metadata of the file.
        config: content of `config.json`, see `read_config`, or None.
        classes: number of outputs of the head.

    Raises:
        ValueError: if a value is out of its range.
    """
    own, beside = parse_json(metadata.get(NOTES_KEY, "{}")), _beside(config or {})
    if METADATA_KEY in metadata:  # transformers' file always states some preparation
        beside.pop("preprocessing", None)
    notes = {name: own.get(name) for name in NOTES}
    notes |= {name: value for name, value in beside.items() if value is not None}
    if notes["class_names"] is not None and len(notes["class_names"]) != classes:
        notes["class_names"] = None
    if not classes:
        notes["probabilities"] = None
    fields = SimpleNamespace(**notes, classes=classes)
    check_notes(fields)
    return without_empty({name: getattr(fields, name) for name in NOTES})


def _beside(config):
    pretrained = config.get("pretrained_cfg")
    if pretrained is None and "input_size" in config:  # as earlier versions of timm wrote
        pretrained = config
    if isinstance(pretrained, Mapping):
        return _of_timm(config, pretrained)
    return {
        "class_names": _names(config.get("id2label")),
        "probabilities": _OF_PROBLEMS.get(config.get("problem_type")),
        "preprocessing": _of_processor(config.get("preprocessor_config") or {}),
    }


# transformers' `problem_type` → what makes probabilities of logits.
_OF_PROBLEMS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def _names(table) -> tuple[str, ...] | None:
    """Names in {"0": "cat", …}; None if they are transformers' defaults, or no names."""
    if not isinstance(table, Mapping):
        return None
    keys = [str(i) for i in range(len(table))]
    names = {str(key): name for key, name in table.items()}
    if not keys or set(keys) != set(names):
        return None
    names = tuple(names[key] for key in keys)
    if names == _default_names(len(names)) or not all(isinstance(n, str) for n in names):
        return None
    return names


def _default_names(count):
    return tuple(f"LABEL_{i}" for i in range(count))


def _of_processor(processor) -> dict[str, Any] | None:
    """Preparation of images as transformers' processor does it; None if we have no such."""
    if not processor.get("do_resize", False):
        return None
    how = {}
    if "resample" in processor:
        filters = {number: name for name, number in _FILTERS.items()}
        if processor["resample"] not in filters:  # nearest, Lanczos …
            return None
        how = {"interpolation": filters[processor["resample"]]}
    size, crop = processor.get("size"), processor.get("crop_size")
    kind = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    if not processor.get("do_center_crop", False):
        squashed = isinstance(size, int) or {"height", "width"} <= set(size or ())
        return {"evaluation_crop": "resize", **how} if squashed else None
    is_square = "DeiT" in str(kind)  # it crops the squashed image, whatever `size` is
    if isinstance(size, Mapping) and not is_square:
        is_square = {"height", "width"} <= set(size)
    if isinstance(crop, Mapping):
        crop = min(crop.get("height") or 0, crop.get("width") or 0)
    if isinstance(size, Mapping):
        edges = ("height", "width") if is_square else ("shortest_edge",)
        size = min(size.get(edge) or 0 for edge in edges)
    return _cropped("square" if is_square else "center", size, crop, how)


def _cropped(evaluation_crop, resized, size, how) -> dict[str, Any] | None:
    """A crop of `size` pixels from an image resized to `resized`, or None."""
    numbers = all(isinstance(value, int) and value > 0 for value in (resized, size))
    if not numbers or resized < size:
        return None
    factor = resized / size
    return {"evaluation_crop": evaluation_crop, "resize_factor": factor, **how}


def _of_timm(config, pretrained):
    names = config.get("label_names") or pretrained.get("label_names")
    names = names or pretrained.get("labels")  # of earlier versions
    if isinstance(names, Mapping):
        names = _names(names)
    elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        names = None
    return {
        "class_names": names and tuple(names),
        "preprocessing": _of_timm_images(pretrained),
    }


def _of_timm_images(pretrained):
    share, mode = pretrained.get("crop_pct"), pretrained.get("crop_mode") or "center"
    size = (pretrained.get("input_size") or (0,))[-1]
    if not isinstance(share, int | float) or not 0 < share <= 1:
        return None
    how = pretrained.get("interpolation") or "bicubic"  # timm's default
    if mode not in ("center", "squash") or how not in _FILTERS:
        return None
    how = {"interpolation": how}
    if mode == "squash" and share == 1:
        return {"evaluation_crop": "resize", **how}
    crop = "square" if mode == "squash" else mode
    return _cropped(crop, int(size / share), size, how)


# Writing.


def hugging_face_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of transformers' `config.json` that name the classes."""
    if not config["classes"]:
        return {}
    names = config.get("class_names") or _default_names(config["classes"])
    fields = {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    for problem, activation in _OF_PROBLEMS.items():
        if config.get("probabilities") == activation:
            fields["problem_type"] = problem
    return fields


def hugging_face_images(
    config: Mapping[str, Any], kind: str, resample: int
) -> dict[str, Any]:
    """Fields of transformers' `preprocessor_config.json` on the size of the images.

    Args:
        config: config of the model.
        kind: transformers' image processor of such models without a crop.
        resample: number of Pillow's filter for such models.
    """
    steps = config.get("preprocessing") or {}
    height, width = steps.get("image_size", config["image_size"])
    size = {"height": height, "width": width}
    crop = steps.get("evaluation_crop")
    if crop is not None:  # as `keras_vit.data` prepares them
        how = steps.get("interpolation", "bilinear")
        if how not in _FILTERS:
            log.warning(
                "transformers' image processors have no interpolation %r: their images "
                "differ from those that keras_vit prepares.",
                how,
            )
        resample = _FILTERS.get(how, _FILTERS["bilinear"])
    if crop == "center" and height != width:
        log.warning(
            "transformers' image processors crop by the shorter side of an image only: "
            "images of %d × %d pixels differ from those that keras_vit prepares.",
            *(height, width),
        )
    if crop == "square":
        sides = {name: round(size[name] * steps["resize_factor"]) for name in size}
        return {
            "image_processor_type": "DeiTImageProcessor",  # which crops squashed images
            "size": sides,
            "do_center_crop": True,
            "crop_size": size,
            "resample": resample,
        }
    if crop != "center":
        return {"image_processor_type": kind, "size": size, "resample": resample}
    return {
        "image_processor_type": "BitImageProcessor",  # which crops
        "size": {"shortest_edge": round(min(height, width) * steps["resize_factor"])},
        "do_center_crop": True,
        "crop_size": size,
        "resample": resample,
    }
