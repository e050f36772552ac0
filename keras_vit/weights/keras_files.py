"""Keras' own files: `.keras` and `.weights.h5`."""

import contextlib
import io
import os
import re
import struct
import warnings
import zipfile

import h5py
import keras

from keras_vit.models.quantized import QUANTIZATION, quantization_of
from keras_vit.models.sizes import count_parameters
from keras_vit.weight_paths import named_weights
from keras_vit.weights.files.archives import ZIP_ERRORS, open_zip
from keras_vit.weights.files.hdf5 import H5_ERRORS, datasets, dtype_of, read
from keras_vit.weights.files.tensor_file import (
    FLOATING,
    TensorFile,
    check_exists,
    is_finite,
    parse_json,
)
from keras_vit.weights.layouts.layout import Layout
from keras_vit.weights.report import LoadReport, log_fresh_head

GRID = "position_embedding/grid"
SAVED_GRID = "layers/position_embedding/vars/grid"
INTEGERS = ("int8", "uint8")  # of quantized kernels
LEGACY = (".h5", ".hdf5")
WEIGHTS = "model.weights.h5"  # in a .keras file
# Keras reads and writes these files itself: there is no table.
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
    except H5_ERRORS:
        return False


def saved_model(path: str) -> keras.Model:
    """The model of a `.keras` file or of a legacy HDF5 file, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not a model that Keras can load.
    """
    check_exists(path)
    if is_legacy(path):
        return _legacy_model(path)
    try:
        with open_zip(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged!r} is another")
            config = parse_json(archive.read("config.json"))
            is_quantized = QUANTIZATION in (config.get("config") or {})
            with _weights_in(archive) as weights:
                shapes, _ = _shapes(weights, is_quantized)
            _check_claims(config, archive.getinfo(WEIGHTS).file_size)
        model = keras.models.load_model(path, compile=False)
        if len(shapes) != len(model.weights):
            raise ValueError(
                f"it holds {len(shapes)} weights, and its model has {len(model.weights)}"
            )
        _check_grid(shapes, model)
    except Exception as error:  # Keras passes on whatever its layers raise
        raise ValueError(
            f"{path!r} is not a complete .keras file of a model known here: {error}"
        ) from error
    return model


def _legacy_model(path):
    # Keras writes the name of a class there without that of its package, by which it
    # finds no class again.
    names = ("VisionTransformer", "BiTResNet")
    ours = {name: keras.saving.get_registered_object(f"keras_vit>{name}") for name in names}
    try:
        with h5py.File(path) as file:
            if "model_config" not in file.attrs:
                raise ValueError("it holds weights alone: `model.load_weights` reads them")
            config = parse_json(file.attrs["model_config"])
            number = _check_legacy_weights(file)
            _check_claims(config, os.path.getsize(path))
        model = keras.models.load_model(path, custom_objects=ours, compile=False)
        if number != len(model.weights):
            raise ValueError(
                f"it holds {number} weights, and its model has {len(model.weights)}"
            )
    except Exception as error:  # Keras passes on whatever its layers raise
        raise ValueError(
            f"{path!r} is not a complete HDF5 file of a model known here: {error}"
        ) from error
    return model


def _check_legacy_weights(file):
    """The number of weights, all of them finite."""
    found = {n: d for n, d in datasets(file).items() if n.startswith("model_weights/")}
    for name, dataset in found.items():
        if dataset.dtype.name in INTEGERS:
            continue
        if dataset.dtype.name not in FLOATING or not is_finite(dataset[()]):
            raise ValueError(f"{name!r} holds NaN, infinity or no floating point")
    return len(found)


def _check_grid(shapes, model):
    """Refuses a grid that is not the config's, as the layer would resize it."""
    saved = shapes.get(SAVED_GRID)
    for path, variable in named_weights(model):
        if path == GRID and saved not in (None, tuple(variable.shape)):
            raise ValueError(
                f"its position grid is of shape {saved}, and its config says "
                f"{tuple(variable.shape)}"
            )


def _check_claims(config, size):
    """Refuses a config whose model would not fit in its own file, before it is built."""
    if config.get("class_name") not in ("VisionTransformer", "BiTResNet"):
        return
    fields = dict(config["config"])
    is_quantized = fields.pop(QUANTIZATION, None)
    claim = count_parameters(**fields)
    if claim > (2 * size if is_quantized else size):  # of half a byte or one, at the least
        raise ValueError(
            f"its config is of more than {claim:,} weights, and it holds {size:,} bytes"
        )


def is_keras_hub(path: str) -> bool:
    """Whether a `.weights.h5` file is of a KerasHub ViT, not of a model of ours."""
    try:
        with h5py.File(path) as file:
            layers = file.get("layers")
            return isinstance(layers, h5py.Group) and any(
                name.startswith("vi_t_") for name in layers
            )
    except H5_ERRORS:
        return False


def load_weights_h5(model, path: str, skip_mismatched_head: bool) -> LoadReport:
    """Lets Keras read its own file, which names no variables; the grid resizes itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or does not fit the model, which is unchanged.
    """
    check_exists(path)
    shapes, head_shapes = _checked_weights(path, model)
    before = model.get_weights()
    head = [layer for layer in model.layers if layer.name == "head"]
    skipped = head if skip_mismatched_head and _is_another(head, head_shapes) else []
    optimizer = [getattr(model, "optimizer", None)]  # absent until compiled
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that failed: told below
            model.load_weights(path, objects_to_skip=optimizer + skipped)
    except Exception as error:  # Keras passes on whatever HDF5 and its layers raise
        model.set_weights(before)
        raise ValueError(
            f"{path!r} does not fit the model {model.name!r}, which is unchanged: {error}"
        ) from error
    saved_grids = [shape for name, shape in shapes.items() if name.endswith(SAVED_GRID)]
    return _report(model, path, saved_grids, fresh_head=bool(skipped))


def _checked_weights(path, model):
    """What Keras does not compare; gives all shapes by name, and those of the head."""
    try:
        shapes, head = _shapes(path, bool(quantization_of(model)))
    except H5_ERRORS as error:
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
    return shapes, head


def _shapes(file, is_quantized):
    """The shapes of all weights in a file, and those of its head.

    Raises:
        ValueError: if one holds no finite numbers, or not as many as it claims.
        Exception: of `H5_ERRORS`, where the file is damaged.
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
            if dataset.parent.attrs.get("name") == "head":
                head.append(dataset.shape)
    return shapes, head


def _is_another(head, shapes):
    """Whether these are the shapes of a whole head, of other classes than the model's."""
    if not head or [len(shape) for shape in shapes] != [2, 1]:
        return False
    (width, classes), (biases,) = shapes
    kernel = head[0].kernel.shape
    return width == kernel[0] and classes == biases != kernel[1]


def _report(model, path, saved_grids, fresh_head):
    named = named_weights(model)
    if len(dict(named)) < len(named):  # of two models
        named = [(weight.path, weight) for weight in model.weights]
    shapes = {path: tuple(weight.shape) for path, weight in named}
    fresh = tuple(p for p in shapes if fresh_head and p.startswith("head/"))
    if fresh:
        log_fresh_head(path, shapes["head/bias"][0])
    grids = [p for p in shapes if p == GRID or p.endswith(f"/{GRID}")]
    pairs = zip(grids, saved_grids, strict=False)
    return LoadReport(
        path,
        loaded=tuple(p for p in shapes if p not in fresh),
        resized={p: (old, shapes[p]) for p, old in pairs if old != shapes[p]},
        dropped={"head": "the model's head has another size"} if fresh else {},
        fresh=fresh,
    )


class KerasFile(TensorFile):
    """The names and shapes in a `.keras` or `.weights.h5` file, which Keras alone reads.

    Attributes:
        saved: of a `.keras` file what its `config.json` says, else an empty dictionary.
        targets: name of a tensor → path of our variable, where it is of a layer of ours.
        optimizer: names of the tensors that are the optimizer's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """

    def __init__(self, path: str):
        super().__init__(path)
        self.kind = ".keras file" if path.endswith(".keras") else ".weights.h5 file"
        self.saved: dict = {}
        self.targets: dict[str, str] = {}
        self.optimizer: list[str] = []
        check_exists(path)
        try:
            with contextlib.ExitStack() as stack:
                weights = path
                if path.endswith(".keras"):
                    archive = stack.enter_context(open_zip(path))
                    self.saved = dict(parse_json(archive.read("config.json")))
                    weights = stack.enter_context(_weights_in(archive))
                file = stack.enter_context(h5py.File(weights))
                tensors = datasets(file)
                units = _names_of_units({n: item.shape for n, item in tensors.items()})
                for name, dataset in tensors.items():
                    self._note(name, dataset, units)
        except ZIP_ERRORS as error:
            raise self._damaged(error) from error

    def _note(self, name, item, units):
        self.shapes[name] = item.shape
        self.dtypes[name] = dtype_of(item)
        if name.startswith("optimizer/"):
            self.optimizer.append(name)
        elif target := _target(name, item.parent.attrs.get("name", ""), units):
            self.targets[name] = target


def _weights_in(archive):
    """The `model.weights.h5` of a `.keras` file, to read in any order."""
    member = archive.getinfo(WEIGHTS)
    if member.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(member))
    # zipfile goes back by starting anew, which takes 20 s in a ViT-B/16.
    with open(archive.filename, "rb") as file:
        file.seek(member.header_offset + 26)
        start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return _Part(archive.filename, start, member.file_size)


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, path, start, size):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115, closed in `close`
        self._start, self._size, self._position = start, size, 0

    def close(self):
        self._file.close()
        super().close()

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer):
        self._file.seek(self._start + self._position)
        length = max(0, min(len(buffer), self._size - self._position))
        read = self._file.readinto(memoryview(buffer)[:length])
        self._position += read
        return read


_ONE_WEIGHT = {"class_token": "tokens", "registers": "tokens", "pooling": "probe"}


_UNIT = re.compile(r"layers/((bottleneck|pre_activation)_unit(?:_(\d+))?)/conv_2/.*")


def _names_of_units(shapes) -> dict[str, str]:
    """Keras' name of a ResNet's root or unit → ours, in a file with these shapes.

    The units of a stage have the same number of filters, twice those of the last one.
    """
    found = [(match, shapes[name]) for name in shapes if (match := _UNIT.fullmatch(name))]
    found.sort(key=lambda pair: int(pair[0][3] or 0))
    stages = sorted({shape[-1] for _, shape in found if shape})
    numbers = dict.fromkeys(stages, 0)
    stem = (
        "stem_"
        if any(name.startswith("layers/patch_embedding/") for name in shapes)
        else ""
    )
    names = {"res_net_root": f"{stem}root"}
    for match, shape in found:
        if shape:
            stage, unit = stages.index(shape[-1]), numbers[shape[-1]]
            names[match[1]] = f"{stem}stage_{stage}_unit_{unit}"
            numbers[shape[-1]] += 1
    return names


def _target(name, layer, units) -> str | None:
    """The path of our variable: Keras numbers layers of a class, and their weights."""
    match = re.fullmatch(r"layers/([^/]+)/((?:.+/)?)vars/(\w+)", name)
    if not match:
        return None
    container, inside, weight = match.groups()
    if block := re.fullmatch(r"encoder_block(?:_(\d+))?", container):
        path = f"block_{block[1] or 0}/{inside[:-1]}"
    elif inside and container in units:
        path = f"{units[container]}/{inside[:-1]}"
    elif inside:
        path = f"pooling/{inside[:-1]}"
    elif not (path := layer):
        return None
    if not weight.isdigit():
        return f"{path}/{weight}"
    if path.endswith("_scale"):
        return f"{path}/scale"
    names = ("gamma", "beta") if re.search(r"norm(_\d)?$", path) else ("kernel", "bias")
    return f"{path}/{_ONE_WEIGHT.get(path, names[int(weight) % 2])}"
