"""Files that hold tensors: listed without reading them, read one by one, never run."""

import io
import json
import math
import mmap
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

import ml_dtypes
import numpy as np

CHUNK = 1 << 20  # bytes, which stay in the processor's cache from check to check
# Weights hardly compress; what unpacks to more than this is made to fill the memory.
MAX_COMPRESSION = 20
MAX_AXES = 32  # of an array in NumPy 1


def check_exists(path: str) -> None:
    """Raises a FileNotFoundError where there is no file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no checkpoint at {path!r}. Expected the path of a file."
        )


def open_tensors(path: str | os.PathLike) -> "TensorFile":
    """Opens a file, or a folder with `model.safetensors`, by its ending.

    Raises:
        FileNotFoundError: if there is no such file, or none in the folder.
        ValueError: if the ending is unknown or the file is damaged.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return open_tensors(_file_in_folder(path))
    for ending, kind in _KINDS.items():
        if path.endswith(ending):
            check_exists(path)
            return kind(path)
    raise ValueError(
        f"A checkpoint ends in {', '.join(ENDINGS)}, or is a folder. Received: {path!r}. "
        "Rename the file if its ending hides one of these."
    )


def _file_in_folder(path):
    for name in FOLDER_FILES:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise FileNotFoundError(
        f"There is no checkpoint in the folder {path!r}. Expected one of "
        f"{', '.join(FOLDER_FILES)}."
    )


class TensorFile:
    """What the kinds of file have in common.

    Attributes:
        path: path of the file.
        paths: paths of all files that hold its tensors.
        shapes: dictionary of tensor name → shape, without reading any tensor.
        dtypes: dictionary of tensor name → name of its dtype.
        metadata: dictionary of str → str that came with the tensors.
    """

    kind = "file"

    def __init__(self, path: str):
        self.path = path
        self.paths = [path]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._checked: set[str] = set()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`, bfloat16 as float32.

        Raises:
            ValueError: if it is damaged, not finite or not of floating-point numbers.
        """
        raise NotImplementedError

    def check(self, name: str) -> None:
        """Raises what `read` would, without keeping the tensor; it then trusts it."""
        self.read(name)
        self._checked.add(name)

    def _add(self, name, shape, dtype):
        """Notes a tensor; a ValueError where a file can only pretend to hold it."""
        if name in self.shapes:
            raise ValueError(f"{name!r} is there twice")
        if len(shape) > MAX_AXES or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"{name!r} claims to be of shape {shape}")
        self.shapes[name] = tuple(shape)
        self.dtypes[name] = dtype

    def _check_floating(self, name):
        if self.dtypes[name] not in FLOATING:
            raise ValueError(
                f"Tensor {name!r} of {self.path!r} holds {self.dtypes[name]} where "
                f"floating-point numbers are expected ({', '.join(FLOATING)})."
            )

    def _check_finite(self, name, tensor):
        if name in self._checked:
            return
        if not is_finite(tensor):
            raise ValueError(
                f"Tensor {name!r} of {self.path!r} holds NaN or infinity: the file is "
                "damaged or comes from a run that diverged. Take another checkpoint."
            )

    def _damaged(self, reason):
        return ValueError(
            f"{self.path!r} ({os.path.getsize(self.path):,} bytes) is not a complete "
            f"{self.kind}: {reason}. If it was downloaded, delete it and download it "
            "again."
        )


FLOATING = ("float64", "float32", "float16", "bfloat16")


def is_finite(tensor: np.ndarray) -> bool:
    """Whether every number is one, also in float32, as which a model holds it."""
    with np.errstate(all="ignore"):
        if tensor.dtype.itemsize > 4:
            tensor = tensor.astype("float32")
        # A finite sum has finite terms; where it overflows, look at each.
        return bool(np.isfinite(tensor.sum()) or np.isfinite(tensor).all())


def open_zip(path: str) -> zipfile.ZipFile:
    """Opens an archive that unpacks to no more than its size can honestly hold.

    Raises:
        ValueError: if it claims to hold more, or is packed in another way than those of
            NumPy, torch and Keras.
        Exception: of `ZIP_ERRORS`, where it is damaged.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    size = os.path.getsize(path)
    names = [member.filename for member in members]
    reason = None
    if packed > size or unpacked > MAX_COMPRESSION * size:
        reason = f"it claims to hold {unpacked:,} bytes of arrays"
    elif len(set(names)) < len(names):
        reason = f"{max(names, key=names.count)!r} is there twice"
    # Of what other methods unpack, Python's zipfile limits no read.
    elif any(member.compress_type not in _PACKED for member in members):
        reason = "it is packed in another way than stored or deflated"
    if reason:
        archive.close()
        raise ValueError(reason)
    return archive


_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def parse_json(text: str | bytes):
    """What a JSON text says, where it says it once and in numbers that are finite.

    Raises:
        ValueError: if it does not, or is no JSON.
    """

    def once(pairs):
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{max(keys, key=keys.count)!r} is there twice")
        return content

    def number(text):
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is no number")
        return value

    try:
        return json.loads(
            text, object_pairs_hook=once, parse_float=number, parse_constant=number
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class NpzFile(TensorFile):
    """A `.npz` archive. Its checksums are compared as its tensors are read."""

    kind = ".npz archive of arrays"

    def __init__(self, path: str):
        super().__init__(path)
        self._members: dict[str, _Member] = {}
        try:
            self._archive = open_zip(path)
            for info in self._archive.infolist():
                self._add_member(info)
        except ZIP_ERRORS as error:
            raise self._damaged(error) from error

    def __exit__(self, *exception):
        self._archive.close()

    def _add_member(self, info):
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise ValueError(f"{name!r} is not an array")
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read_header(file)
            header = file.tell()
        if dtype.hasobject:
            raise ValueError(f"{name!r} holds pickled objects, which are never opened")
        if dtype == "V2":  # how NumPy writes what it does not know
            dtype = np.dtype(ml_dtypes.bfloat16)
        expected = header + math.prod(shape) * dtype.itemsize
        if info.file_size != expected:
            raise ValueError(
                f"{name!r} has {info.file_size:,} bytes, and its header says {expected:,}"
            )
        self._add(name, shape, dtype.name)
        self._members[name] = _Member(info, header, dtype, fortran_order)

    def read(self, name):
        dtype = self._members[name].dtype
        flat = np.empty(math.prod(self.shapes[name]), dtype)
        start = 0
        for chunk in self._chunks(name, flat.view("uint8")):
            self._check_finite(name, flat[start : start + len(chunk) // dtype.itemsize])
            start += len(chunk) // dtype.itemsize
        order = "F" if self._members[name].fortran_order else "C"
        tensor = flat.reshape(self.shapes[name], order=order)
        if dtype == ml_dtypes.bfloat16:
            return tensor.astype("float32")
        return tensor.astype(dtype.newbyteorder("="), copy=False)  # as variables need it

    def check(self, name):
        for chunk in self._chunks(name):
            self._check_finite(name, chunk.view(self._members[name].dtype))
        self._checked.add(name)

    def _chunks(self, name, buffer=None) -> Iterator[np.ndarray]:
        """Reads a tensor's bytes, part by part, into a buffer or each over the last.

        At the end the checksum is compared, but of what has been checked.
        """
        self._check_floating(name)
        info, header, _, _ = self._members[name]
        size = info.file_size - header
        scratch = np.empty(min(CHUNK, size), "uint8") if buffer is None else None
        try:
            with self._open(info) as file:
                checksum = zlib.crc32(file.read(header))
                for start in range(0, size, CHUNK):
                    stop = min(start + CHUNK, size)
                    chunk = (
                        buffer[start:stop] if scratch is None else scratch[: stop - start]
                    )
                    if file.readinto(chunk) != len(chunk):
                        raise EOFError(f"{name!r} ends early")
                    if name not in self._checked:
                        checksum = zlib.crc32(chunk, checksum)
                    yield chunk
            if name not in self._checked and checksum != info.CRC:
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
        except ZIP_ERRORS as error:
            raise self._damaged(error) from error

    def _open(self, info):
        """A member as a file; one that is not compressed without zipfile's copying."""
        if info.compress_type != zipfile.ZIP_STORED:
            return io.BufferedReader(self._archive.open(info), CHUNK)
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115, the caller closes it
        file.seek(info.header_offset)
        name_length, extra_length = struct.unpack("<26xHH", file.read(30))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        return file


class _Member(NamedTuple):
    """A member of an archive; `header` is the number of bytes before the numbers."""

    info: zipfile.ZipInfo
    header: int
    dtype: np.dtype
    fortran_order: bool


class SafetensorsFile(TensorFile):
    """A `.safetensors` file."""

    kind = ".safetensors file"

    def __init__(self, path: str):
        import safetensors

        super().__init__(path)
        try:
            with safetensors.safe_open(path, "numpy") as file:
                self.metadata = dict(file.metadata() or {})
                _check_header(path)
                self._checksums = self._find_checksums()
                for key, text in self.metadata.items():
                    self._check_sum(key, text.encode())
                for name in file.keys():  # noqa: SIM118, it is no dictionary
                    part = file.get_slice(name)
                    dtype = part.get_dtype()
                    dtype = _SAFETENSORS_DTYPES.get(dtype, dtype)
                    self._add(name, tuple(part.get_shape()), dtype)
                self._check_names()
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def read(self, name):
        import safetensors

        self._check_floating(name)
        try:
            # Opened anew for each tensor: the pages of an open file that were read stay
            # in the process, at the end all of them.
            with safetensors.safe_open(self.path, "numpy") as file:
                tensor = file.get_tensor(name)
            if name not in self._checked:
                self._check_sum(name, tensor)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        self._check_finite(name, tensor)
        return tensor.astype("float32") if tensor.dtype == ml_dtypes.bfloat16 else tensor

    def _find_checksums(self):
        checksums = parse_json(self.metadata.get(CHECKSUMS, "{}"))
        if not isinstance(checksums, dict):
            raise ValueError(f"{CHECKSUMS!r} in its metadata is no dictionary")
        return checksums

    def _check_names(self):
        """That there is a checksum for each tensor of a file of ours, and no other."""
        different = (set(self._checksums) - set(self.metadata)) ^ set(self.shapes)
        if self._checksums and different:
            raise ValueError(
                f"{min(different)!r} is not among the names that `keras_vit.save_weights` "
                f"wrote, or the other way round. {_LEFT_OUT}"
            )

    def _check_sum(self, name, data):
        """Compares what is there with what `save_weights` wrote."""
        expected = self._checksums.get(name)
        if expected is not None and expected != checksum(data):
            raise ValueError(
                f"{name!r} is not as `keras_vit.save_weights` wrote it. {_LEFT_OUT}"
            )


# The key of our files' metadata under which a CRC-32 of each tensor lies.
CHECKSUMS = "keras_vit.crc32"
_LEFT_OUT = f"A program that changed it should have left out {CHECKSUMS!r} of the metadata"


def checksum(data: bytes | np.ndarray) -> int:
    """The CRC-32 of a text or of a tensor's numbers."""
    if isinstance(data, np.ndarray):
        data = data.reshape(-1).view("uint8")
    return zlib.crc32(data)


def _check_header(path):
    """Of a name that is there twice safetensors itself takes the last."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        parse_json(file.read(length))


_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}


class ShardedFile(TensorFile):
    """Several `.safetensors` files under one index, as Hugging Face writes them."""

    kind = "index of .safetensors files"

    def __init__(self, path: str):
        super().__init__(path)
        self._files = {}
        places = self._places()
        self.paths = []
        for shard in sorted(set(places.values())):
            shard_path = os.path.join(os.path.dirname(path), shard)
            check_exists(shard_path)
            file = SafetensorsFile(shard_path)
            self.paths.append(shard_path)
            indexed = {name for name, place in places.items() if place == shard}
            if indexed != set(file.shapes):
                differing = ", ".join(sorted(indexed ^ set(file.shapes))[:4])
                raise self._damaged(f"{shard!r} does not hold what it says: {differing}")
            self.shapes |= file.shapes
            self.dtypes |= file.dtypes
            self.metadata |= file.metadata
            self._files |= dict.fromkeys(file.shapes, file)

    def _places(self):
        """Name of a tensor → name of its file, which lies beside the index."""
        try:
            with open(self.path, encoding="utf-8") as file:
                places = parse_json(file.read())["weight_map"]
            if any(PurePath(name).name != name for name in places.values()):
                raise ValueError("the name of a shard leads out of the folder")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._damaged(error) from error
        return places

    def read(self, name):
        return self._files[name].read(name)

    def check(self, name):
        self._files[name].check(name)


class TorchFile(TensorFile):
    """A state dict of torch, read by torch without running any code of the file."""

    kind = "state dict of tensors"

    def __init__(self, path: str):
        super().__init__(path)
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"Reading {path!r} needs torch, in which the file is written. Install it, "
                "or take the checkpoint as .safetensors."
            ) from error
        self._tensors, self._bytes = {}, 0
        for name, tensor in self._state_dict(torch).items():
            if isinstance(tensor, torch.Tensor):
                self._add_tensor(name, tensor)

    def _add_tensor(self, name, tensor):
        shape = tuple(tensor.shape)
        try:
            if not isinstance(name, str):
                raise ValueError(f"{name!r} is no name of a tensor")
            # Views can repeat their numbers without end; tied weights do so once.
            self._bytes += tensor.numel() * tensor.element_size()
            if self._bytes > 2 * os.path.getsize(self.path):
                raise ValueError(f"{name!r} claims to be of shape {shape}")
            self._add(name, shape, str(tensor.dtype).removeprefix("torch."))
        except ValueError as error:
            raise self._damaged(error) from error
        self._tensors[name] = tensor

    def _state_dict(self, torch):
        import argparse
        import pickle

        try:
            self._check_archive()
            # Training scripts leave their arguments beside the tensors.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(self.path, "cpu", weights_only=True)
            while True:  # {"model": {…}}, {"state_dict": {…}}, …
                if not isinstance(content, dict):
                    raise TypeError(f"it holds a {type(content).__name__}")
                nested = [key for key in NESTED if isinstance(content.get(key), dict)]
                if not nested:
                    return content
                content = content[nested[0]]
        except (*ZIP_ERRORS, pickle.UnpicklingError, AssertionError) as error:
            # As torch suggests to trust the file, only the first sentence is passed on.
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise self._damaged(reason or type(error).__name__) from error

    def _check_archive(self):
        """Looks for what torch itself does not: checksums, and claims without bytes."""
        with open(self.path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":  # of torch before 1.6: pickles in a row
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pickles:
                    for _ in range(_LEGACY_PICKLES):
                        self._check_pickle(pickles)
                return
        with open_zip(self.path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged!r} is another")
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    self._check_pickle(io.BytesIO(archive.read(name)))

    def _check_pickle(self, file):
        """Refuses what torch would make of a pickle, but no state dict needs."""
        import pickletools

        size, number = os.path.getsize(self.path), None
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL" and not re.fullmatch(_GLOBALS, argument):
                raise ValueError(f"it holds {argument!r}, which no tensor needs")
            if isinstance(argument, int) and "PUT" not in opcode.name:
                number = argument
            # What precedes is a storage, which ends in its number of elements.
            if opcode.name == "BINPERSID" and number is not None and number > size:
                raise ValueError(f"it claims to hold {number:,} numbers")

    def read(self, name):
        self._check_floating(name)
        tensor = self._tensors[name].detach().contiguous()
        if self.dtypes[name] == "bfloat16":  # which NumPy does not know
            tensor = tensor.float()
        tensor = tensor.numpy()
        self._check_finite(name, tensor)
        return tensor


_LEGACY_PICKLES = 5  # two numbers of versions, system, state dict, keys of storages
# What a state dict is made of (Python 2 and 3). Others that torch allows take memory for
# the asking: `bytearray`, empty tensors, storages that are in no file.
_GLOBALS = (
    r"collections (OrderedDict|Counter)|argparse Namespace|_codecs encode|"
    r"torch\._utils _rebuild_(tensor(_v2)?|parameter(_with_state)?)|"
    r"torch\.nn\.parameter Parameter|"
    r"torch (\w+Storage|Size|device|u?int\d+|b?float\d+|complex\d+|bool)|"
    r"(builtins|__builtin__) (set|complex)"
)


def datasets(file) -> dict:
    """The datasets of an open HDF5 file by name, of which each holds what it claims.

    Keras writes none that is packed; unpacked they can take any memory.

    Raises:
        ValueError: if one is packed, lies elsewhere or claims more bytes than there are.
        Exception: of `H5_ERRORS`, where the file is damaged.
    """
    import h5py

    found, total = {}, 0
    file.visititems(
        lambda name, item: (
            found.update({name: item}) if isinstance(item, h5py.Dataset) else None
        )
    )
    for name, dataset in found.items():
        if dataset.external or dataset.is_virtual or dataset.chunks:
            raise ValueError(f"{name!r} is packed or lies in another file")
        size = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        total += size
        if dataset.id.get_storage_size() != size or total > file.id.get_filesize():
            raise ValueError(f"{name!r} claims to be of shape {dataset.shape}")
    return found


H5_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
)


class H5File(TensorFile):
    """The weights of a KerasHub preset: `model.weights.h5`, `task.weights.h5` beside it."""

    kind = ".weights.h5 file"

    def __init__(self, path: str):
        super().__init__(path)
        self._places = {}  # name → (path of the file, name in it)
        self._add_file(path)
        task = os.path.join(os.path.dirname(path), "task.weights.h5")
        if os.path.basename(path) == "model.weights.h5" and os.path.isfile(task):
            self._add_file(task)
            self.paths.append(task)

    def _add_file(self, path):
        import h5py

        try:
            with h5py.File(path) as file:
                for name, dataset in datasets(file).items():
                    layer, _, number = name.rpartition("/vars/")
                    # Keras numbers its dense layers as it meets them; their names say
                    # which.
                    if layer.startswith("layers/dense"):
                        layer = f"layers/{dataset.parent.attrs.get('name', layer)}"
                    ours = f"{layer}/vars/{number}"
                    self._add(ours, dataset.shape, str(dataset.dtype))
                    self._places[ours] = (path, name)
        except H5_ERRORS as error:
            raise self._damaged(error) from error

    def read(self, name):
        import h5py

        self._check_floating(name)
        path, place = self._places[name]
        try:
            with h5py.File(path) as file:
                tensor = file[place][()]
        except H5_ERRORS as error:
            raise self._damaged(error) from error
        self._check_finite(name, tensor)
        return tensor


# Where training scripts put the weights.
NESTED = ("state_dict", "model", "teacher", "module")

_KINDS = {
    ".npz": NpzFile,
    ".safetensors": SafetensorsFile,
    ".safetensors.index.json": ShardedFile,
    ".pth": TorchFile,
    ".pt": TorchFile,
    ".bin": TorchFile,
    ".h5": H5File,
}
ENDINGS = (*_KINDS, ".keras")
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "model.weights.h5",
)

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    AttributeError,
    NotImplementedError,  # an encrypted or exotically compressed member
    OSError,
    RuntimeError,
    SyntaxError,  # of the header
    tokenize.TokenError,  # the same, where NumPy tries again
    TypeError,
    ValueError,
    MemoryError,
    OverflowError,
    UnicodeDecodeError,
)
