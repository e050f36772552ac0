"""Metadata of exported files: class names and the preparation of images."""

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_vit.exporting.formats import Format, find_format
from keras_vit.models.notes import PROBABILITIES

NAME = "keras_vit.json"  # file, in formats that hold files
KEY = "keras_vit"  # section, in formats that hold sections
LABELS = "labels.txt"  # one class per line, where readers of LiteRT files look for it


def metadata_of(model: keras.Model) -> dict[str, Any]:
    """Facts that a program needs to prepare images for a model and to name its classes.

    Returns:
        A dictionary that JSON can hold, with the known facts among `"class_names"`,
        `"probabilities"` (the function that gives them from the outputs: `"softmax"`,
        `"sigmoid"`, or `"none"` if the outputs are probabilities), `"image_size"` (height,
        width), `"data_format"`, `"image_mean"` and `"image_std"` (of pixel values from 0 to
        1; left out if the model takes values from 0 to 255), `"evaluation_crop"`,
        `"resize_factor"` and `"interpolation"` (see `data.Augmentation`), `"value_range"`
        and `"alpha"`. Empty for a model of another package.
    """
    config = model.get_config()
    if "image_mean" not in config:
        return {}
    told = {"class_names": config.get("class_names")}
    if config["classes"]:
        told["probabilities"] = _probabilities(config)
    told |= {name: config[name] for name in ("image_size", "data_format")}
    if not config["include_preprocessing"]:
        told |= {name: config[name] for name in ("image_mean", "image_std")}
    if preprocessing := config.get("preprocessing"):
        told |= {k: v for k, v in preprocessing.items() if k != "image_size"}
        if "evaluation_crop" in preprocessing:
            told.setdefault("interpolation", "bilinear")  # the default of `keras_vit.data`
    told = {name: value for name, value in told.items() if value is not None}
    return json.loads(json.dumps(told))


def _probabilities(config) -> str | None:
    activation = config["classifier_activation"]
    if activation in (None, "linear"):
        return config.get("probabilities")
    return "none" if activation in PROBABILITIES else None  # unknown for others


def attach(row: Format, path: str, metadata: Mapping[str, Any]) -> None:
    """Writes metadata into an exported file."""
    if metadata:
        _WRITERS[row.name](path, metadata)


def read_metadata(
    path: str | os.PathLike[str], *, format: str | None = None
) -> dict[str, Any]:
    """Reads the class names and the preparation of images from an exported file.

    Args:
        path: path of the file or folder.
        format: format of the file; `None` takes that of the ending.

    Returns:
        The dictionary of `metadata_of`; empty if the file has none.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ImportError: if the package that reads the format is not installed.
        ValueError: if the ending does not tell the format.
    """
    path = os.fspath(path)
    row = find_format(path, format)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no exported model at {path!r}.")
    return _READERS[row.name](path)


# SavedModel: `assets.extra` is the folder for files that are no part of the model.


def _extra(path):
    return os.path.join(path, "assets.extra", NAME)


def _write_saved_model(path, metadata):
    os.makedirs(os.path.dirname(_extra(path)), exist_ok=True)
    with open(_extra(path), "w", encoding="utf-8") as file:
        file.write(_text(metadata))


def _read_saved_model(path):
    if not os.path.isfile(_extra(path)):
        return {}
    with open(_extra(path), encoding="utf-8") as file:
        return json.load(file)


# ONNX: strings by name.


def _write_onnx(path, metadata):
    import onnx

    model = onnx.load(path, load_external_data=False)
    others = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(
        model, others | {k: _text(value) for k, value in metadata.items()}
    )
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def _read_onnx(path):
    import onnx

    model = onnx.load(path, load_external_data=False)
    return _known({prop.key: prop.value for prop in model.metadata_props})


def _known(texts):
    """Decodes the entries of a format's metadata that this package writes."""
    return {k: json.loads(text) for k, text in texts.items() if k in _NAMES}


_NAMES = (
    *("class_names", "probabilities", "image_size", "data_format", "image_mean"),
    *("image_std", "evaluation_crop", "resize_factor", "interpolation", "value_range"),
    "alpha",
)


# OpenVINO: sections of strings by name.


def _write_openvino(path, metadata):
    import openvino

    model = openvino.Core().read_model(path)
    for name, value in metadata.items():
        model.set_rt_info(_text(value), [KEY, name])
    # Save to another path: OpenVINO reads the weights lazily from the file at `path`.
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f"with-metadata-{name}")
    openvino.save_model(model, beside, compress_to_fp16=False)
    del model
    for ending in (".xml", ".bin"):
        os.replace(
            f"{beside.removesuffix('.xml')}{ending}", f"{path.removesuffix('.xml')}{ending}"
        )


def _read_openvino(path):
    import openvino

    model = openvino.Core().read_model(path)
    names = [name for name in _NAMES if model.has_rt_info([KEY, name])]
    return {name: json.loads(model.get_rt_info([KEY, name]).astype(str)) for name in names}


# LiteRT: a ZIP archive appended to the model, as LiteRT's metadata tools do for labels.


def _write_litert(path, metadata):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAME, _text(metadata))
        if names := metadata.get("class_names"):
            archive.writestr(LABELS, "".join(f"{' '.join(n.split())}\n" for n in names))


def _read_litert(path):
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(NAME)) if NAME in archive.namelist() else {}


# torch: extra files in the archive of the program.


def _write_torch(path, metadata):
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/{NAME}", _text(metadata))


def _read_torch(path):
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        name = f"{root}/extra/{NAME}"
        return json.loads(archive.read(name)) if name in archive.namelist() else {}


def _text(value) -> str:
    return json.dumps(value, ensure_ascii=False)


_WRITERS: dict[str, Callable[[str, Mapping[str, Any]], None]] = {
    "saved_model": _write_saved_model,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "litert": _write_litert,
    "torch": _write_torch,
}
_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "saved_model": _read_saved_model,
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "litert": _read_litert,
    "torch": _read_torch,
}
