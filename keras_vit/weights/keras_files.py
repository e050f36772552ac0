"""Keras' own files: `.keras`, `.weights.h5` and its legacy HDF5 format."""

import os
import warnings

import h5py
import keras

from keras_vit.models.quantized import QUANTIZATION, quantization_of
from keras_vit.models.sizes import count_parameters
from keras_vit.weight_paths import HEADS, named_weights
from keras_vit.weights.files.archives import open_member, open_zip
from keras_vit.weights.files.hdf5 import datasets, dtype_of, read
from keras_vit.weights.files.tensor_file import (
    DAMAGE_ERRORS,
    FLOATING,
    check_exists,
    is_finite,
    parse_json,
)
from keras_vit.weights.layouts.layout import Layout
from keras_vit.weights.report import LoadReport, log_fresh_head

GRID = "position_embedding/grid"
GRIDS = (GRID, "layer_positions/grid")
AXES = tuple(  # in place of a grid
    path.replace("grid", axis) for path in GRIDS for axis in ("rows", "columns")
)
TABLE = "attention/relative_position/grid"
KEYS = "attention/relative_keys/grid"
# End of our path → end of the name in Keras' files, of grids that are resized.
_SAVED_GRIDS = {
    **{path: f"/{path.replace('/', '/vars/')}" for path in (*GRIDS, *AXES)},
    GRID: "layers/position_embedding/vars/grid",
    TABLE: "attention/relative_position/vars/grid",
    KEYS: "attention/relative_keys/vars/grid",
}
INTEGERS = ("int8", "uint8")  # of quantized kernels
LEGACY = (".h5", ".hdf5")
WEIGHTS = "model.weights.h5"  # in a .keras file
# Keras reads and writes these files itself, so there is no table.
FIRST_KERNELS = (  # as Keras names them, beside our paths
    ("layers/patch_embedding/vars/0", "patch_embedding/kernel"),
    ("layers/res_net_root/conv/vars/0", "stem_root/conv/kernel"),
    ("layers/res_net_root/conv/vars/0", "root/conv/kernel"),
    ("layers/conv2d/vars/0", "stem_conv/kernel"),
)
CLASSES = ("VisionTransformer", "BiTResNet", "EfficientNet")
KERAS = Layout(name="keras", rows=(), marks=())


def is_saved_model(path: str) -> bool:
    """True for a `.keras` file, or one of Keras' legacy HDF5 files."""
    return path.endswith(".keras") or is_legacy(path)


def is_weights_file(path: str) -> bool:
    """True for a `.weights.h5` file of a model of ours."""
    is_of_keras = path.endswith(".weights.h5") and not is_saved_model(path)
    return is_of_keras and not is_keras_hub(path)


def is_legacy(path: str) -> bool:
    """True for Keras' legacy HDF5 format, which `model.save("….h5")` writes."""
    if not path.endswith(LEGACY):
        return False
    try:
        with h5py.File(path) as file:
            return bool({"model_config", "layer_names"} & set(file.attrs))
    except DAMAGE_ERRORS:
        return False


def saved_model(path: str) -> keras.Model:
    """The model of a `.keras` file or of a legacy HDF5 file, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or no model that Keras can load.
    """
    check_exists(path)
    legacy = is_legacy(path)
    try:
        number, model = _legacy_model(path) if legacy else _model(path)
        if number != len(model.weights):
            raise ValueError(
                f"it holds {number} weights, and its model has {len(model.weights)}"
            )
    except Exception as error:  # Keras passes on any error of its layers
        raise ValueError(
            f"{path!r} is not a complete {'HDF5' if legacy else '.keras'} file of a model "
            f"known here: {error}"
        ) from error
    return model


def _model(path):
    """(number of weights, model) of a `.keras` file."""
    with open_zip(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged!r} is another")
        config = parse_json(archive.read("config.json"))
        is_quantized = QUANTIZATION in (config.get("config") or {})
        with open_member(archive, WEIGHTS) as weights:
            shapes, _ = _shapes(weights, is_quantized)
        _check_claims(config, archive.getinfo(WEIGHTS).file_size)
    model = keras.models.load_model(path, compile=False)
    _check_grids(shapes, model)
    return len(shapes), model


def _legacy_model(path):
    """(number of weights, model) of a legacy HDF5 file."""
    # Keras writes the names of classes there without their package: it needs the classes.
    ours = {n: keras.saving.get_registered_object(f"keras_vit>{n}") for n in CLASSES}
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise ValueError("it holds weights alone: `model.load_weights` reads them")
        config = parse_json(file.attrs["model_config"])
        number = _check_legacy_weights(file)
        _check_claims(config, os.path.getsize(path))
    return number, keras.models.load_model(path, custom_objects=ours, compile=False)


def _check_legacy_weights(file):
    """Refuses weights that are not finite; returns their number."""
    found = {n: d for n, d in datasets(file).items() if n.startswith("model_weights/")}
    for name, dataset in found.items():
        if dataset.dtype.name in INTEGERS:
            continue
        if dataset.dtype.name not in FLOATING or not is_finite(dataset[()]):
            raise ValueError(f"{name!r} holds NaN, infinity or no floating point")
    return len(found)


def _check_grids(shapes, model):
    """Refuses grids of another size than the config's, which would be resized."""
    expected = {path: tuple(variable.shape) for path, variable in named_weights(model)}
    for path, saved in _saved_grids(shapes, expected):
        if saved != expected[path]:
            raise ValueError(
                f"its position grid is of shape {saved}, and its config says "
                f"{expected[path]} ({path})"
            )


def _saved_grids(shapes, paths):
    """(our path, shape in the file) of each grid; `shapes` are those of the file."""
    for path, name in _SAVED_GRIDS.items():
        ours = [p for p in paths if p == path or p.endswith(f"/{path}")]
        saved = [shape for n, shape in shapes.items() if n.endswith(name)]
        yield from zip(ours, saved, strict=False)


def _check_claims(config, size):
    """Refuses a config of a model that is larger than its file, before it is built."""
    if config.get("class_name") not in CLASSES:
        return
    fields = dict(config["config"])
    is_quantized = fields.pop(QUANTIZATION, None)
    claim = count_parameters(**fields)
    if claim > (2 * size if is_quantized else size):  # at least half a byte each, or one
        raise ValueError(
            f"its config is of more than {claim:,} weights, and it holds {size:,} bytes"
        )


def is_keras_hub(path: str) -> bool:
    """True for a `.weights.h5` file of a KerasHub ViT."""
    try:
        with h5py.File(path) as file:
            layers = file.get("layers")
            return isinstance(layers, h5py.Group) and any(
                name.startswith("vi_t_") for name in layers
            )
    except DAMAGE_ERRORS:
        return False


def load_weights_h5(
    model: keras.Model, path: str, skip_mismatched_head: bool
) -> LoadReport:
    """Loads a `.weights.h5` file by Keras, as its tensors have no names.

    The layers of positions resize grids of another size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or does not fit the model, which is unchanged.
    """
    check_exists(path)
    shapes, head_shapes = _checked_weights(path, model)
    before = model.get_weights()
    heads = [layer for layer in model.layers if layer.name in HEADS]
    skipped = heads if skip_mismatched_head and _is_another(heads, head_shapes) else []
    optimizer = [getattr(model, "optimizer", None)]  # absent until compiled
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that failed, which raise below
            model.load_weights(path, objects_to_skip=optimizer + skipped)
    except Exception as error:  # Keras passes on any error of HDF5 and its layers
        model.set_weights(before)
        raise ValueError(
            f"{path!r} does not fit the model {model.name!r}, which is unchanged: {error}"
        ) from error
    return _report(model, path, shapes, fresh_head=bool(skipped))


def _checked_weights(path, model):
    """Compares what Keras does not; returns all shapes by name, and those of the head."""
    try:
        shapes, head = _shapes(path, bool(quantization_of(model)))
    except DAMAGE_ERRORS as error:
        raise ValueError(
            f"{path!r} ({os.path.getsize(path):,} bytes) is not a complete .weights.h5 "
            f"file: {error}"
        ) from error
    if len(shapes) != len(model.weights):
        raise ValueError(
            f"{path!r} does not fit the model {model.name!r}, which is unchanged: it "
            f"holds {len(shapes)} weights, expected {len(model.weights)}. Build the model "
            "with the arguments it was saved with, or save it as .keras, which holds them, "
            "for `keras_vit.from_pretrained`."
        )
    _check_channels(path, shapes, model)
    return shapes, head


def _check_channels(path, shapes, model):
    """Refuses images of other channels, where Keras' error would print whole kernels."""
    ours = dict(named_weights(model))
    for saved, kernel in FIRST_KERNELS:
        if saved not in shapes or kernel not in ours:
            continue
        shape, expected = shapes[saved], ours[kernel].shape[-2]
        channels = shape[-2] if len(shape) == len(ours[kernel].shape) else expected
        if channels != expected:
            raise ValueError(
                f"{path!r} does not fit the model {model.name!r}, which is unchanged: its "
                f"images have {channels} channels, expected {expected}. Keras itself reads "
                "this file, and extends no kernel: load it into a model of its channels, "
                "then use `keras_vit.from_pretrained(model, input_shape=…)`."
            )


def _shapes(file, is_quantized):
    """The shapes of all weights in a file, and those of its heads.

    Raises:
        ValueError: if one is not finite, or smaller than it claims.
        Exception: of `DAMAGE_ERRORS`, where the file is damaged.
    """
    shapes, head = {}, []
    with h5py.File(file) as opened:
        for name, dataset in datasets(opened).items():
            root = name.partition("/")[0]
            if root == "optimizer":
                continue
            if root != "layers":
                raise ValueError(f"{name!r} is no weight of a layer")
            if is_quantized and dataset.dtype.name in INTEGERS:
                shapes[name] = dataset.shape
                continue
            if (dtype := dtype_of(dataset)) not in FLOATING:
                raise ValueError(
                    f"{name!r} holds {dtype}, no floating point (weights of a "
                    "quantized model go into one that is quantized alike)"
                )
            if not is_finite(read(dataset)):
                raise ValueError(f"{name!r} holds NaN or infinity")
            shapes[name] = dataset.shape
            if dataset.parent.attrs.get("name") in HEADS:
                head.append(dataset.shape)
    return shapes, head


def _is_another(heads, shapes):
    """True if these are the shapes of as many heads with another number of classes."""
    if not heads or [len(shape) for shape in shapes] != [2, 1] * len(heads):
        return False
    (width, classes), _ = shapes[:2]
    kernel = heads[0].kernel.shape
    return (
        shapes == [(width, classes), (classes,)] * len(heads)
        and width == kernel[0]
        and classes != kernel[1]
    )


def _report(model, path, saved_shapes, fresh_head):
    named = named_weights(model)
    if len(dict(named)) < len(named):  # several models have the same paths
        named = [(weight.path, weight) for weight in model.weights]
    shapes = {path: tuple(weight.shape) for path, weight in named}
    fresh = tuple(p for p in shapes if fresh_head and p.split("/")[0] in HEADS)
    if fresh:
        log_fresh_head(path, shapes["head/bias"][0])
    pairs = _saved_grids(saved_shapes, shapes)
    return LoadReport(
        path,
        loaded=tuple(p for p in shapes if p not in fresh),
        resized={p: (old, shapes[p]) for p, old in pairs if old != shapes[p]},
        dropped={"head": "the model's head has another size"} if fresh else {},
        fresh=fresh,
    )
