"""Keras' own files: `.keras` and `.weights.h5`."""

import contextlib
import io
import json
import os
import re
import struct
import warnings
import zipfile
import zlib

import h5py
import keras

from keras_vit.weights.files import TensorFile, check_exists
from keras_vit.weights.layout import Layout
from keras_vit.weights.report import LoadReport, tell_fresh_head

GRID = "position_embedding/grid"
# Keras reads and writes these files itself: there is no table.
KERAS = Layout(name="keras", rows=(), marks=())


def saved_model(path: str) -> keras.Model:
    """The model of a `.keras` file, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not a model that Keras can load.
    """
    check_exists(path)
    try:
        return keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, TypeError,
            ValueError) as error:  # fmt: skip
        raise ValueError(
            f"{path!r} is not a complete .keras file of a model known here: {error}"
        ) from error


def is_keras_hub(path: str) -> bool:
    """Whether a `.weights.h5` file is of a KerasHub ViT, not of a model of ours."""
    try:
        with h5py.File(path) as file:
            layers = file.get("layers", {})
            return any(name.startswith("vi_t_") for name in layers)
    except OSError:
        return False


def load_weights_h5(model, path: str, skip_mismatched_head: bool) -> LoadReport:
    """Lets Keras read its own file, which names no variables; the grid resizes itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or does not fit the model, which is unchanged.
    """
    check_exists(path)
    saved_grid = _check_number_of_weights(path, model)
    before = model.get_weights()
    head = [layer for layer in model.layers if layer.name == "head"]
    # Tried in turn: the whole model, then all but the head. Never the optimizer.
    attempts = [[], head] if head and skip_mismatched_head else [[]]
    optimizer = [getattr(model, "optimizer", None)]  # absent until compiled
    errors = []
    for skipped in attempts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of layers that failed: told below
                model.load_weights(path, objects_to_skip=optimizer + skipped)
        except Exception as error:  # Keras passes on whatever HDF5 and its layers raise
            model.set_weights(before)
            errors.append(error)
        else:
            return _report(model, path, saved_grid, fresh_head=bool(skipped))
    raise ValueError(
        f"{path!r} does not fit the model {model.name!r}, which is unchanged: {errors[0]}"
    ) from errors[0]


def _check_number_of_weights(path, model):
    """Compares what Keras does not, and gives the shape of the position grid."""
    shapes = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset) and name.startswith("layers/"):
            shapes[name] = item.shape

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except OSError as error:
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
    return shapes.get("layers/position_embedding/vars/grid")


def _report(model, path, saved_grid, fresh_head):
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    fresh = tuple(p for p in shapes if fresh_head and p.startswith("head/"))
    if fresh:
        tell_fresh_head(path, shapes["head/bias"][0])
    grid = shapes.get(GRID)
    return LoadReport(
        path,
        loaded=tuple(p for p in shapes if p not in fresh),
        resized={GRID: (saved_grid, grid)} if saved_grid != grid else {},
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
                    archive = stack.enter_context(zipfile.ZipFile(path))
                    self.saved = dict(json.loads(archive.read("config.json")))
                    weights = stack.enter_context(_weights_in(archive))
                stack.enter_context(h5py.File(weights)).visititems(self._note)
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, OSError,
                RuntimeError, TypeError, ValueError) as error:  # fmt: skip
            raise self._damaged(error) from error

    def _note(self, name, item):
        if not isinstance(item, h5py.Dataset):
            return
        self.shapes[name] = item.shape or ()
        self.dtypes[name] = str(item.dtype)
        if name.startswith("optimizer/"):
            self.optimizer.append(name)
        elif target := _target(name, item.parent.attrs.get("name", "")):
            self.targets[name] = target


def _weights_in(archive):
    """The `model.weights.h5` of a `.keras` file, to read in any order."""
    member = archive.getinfo("model.weights.h5")
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


def _target(name, layer) -> str | None:
    """The path of our variable: Keras numbers layers of a class, and their weights."""
    match = re.fullmatch(r"layers/([^/]+)/((?:.+/)?)vars/(\w+)", name)
    if not match:
        return None
    container, inside, weight = match.groups()
    if block := re.fullmatch(r"encoder_block(?:_(\d+))?", container):
        path = f"block_{block[1] or 0}/{inside[:-1]}"
    elif inside:
        path = f"pooling/{inside[:-1]}"
    elif not (path := layer):
        return None
    if not weight.isdigit():
        return f"{path}/{weight}"
    if path.endswith("_scale"):
        return f"{path}/scale"
    names = ("gamma", "beta") if path.endswith("norm") else ("kernel", "bias")
    return f"{path}/{_ONE_WEIGHT.get(path, names[int(weight) % 2])}"
