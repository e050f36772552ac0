"""`.safetensors` files, and several files under one index."""

import os
import zlib
from pathlib import PurePath

import ml_dtypes
import numpy as np

from keras_vit.weights.files.tensor_file import TensorFile, check_exists, parse_json


class SafetensorsFile(TensorFile):
    """A `.safetensors` file."""

    kind = ".safetensors file"

    def __init__(self, path: str):
        import safetensors

        super().__init__(path)
        try:
            with safetensors.safe_open(path, "numpy") as file:
                self.metadata |= file.metadata() or {}
                _check_header(path)
                self._checksums = self._find_checksums()
                for key, text in self.metadata.items():
                    self._check_sum(key, text.encode())
                for name in file.keys():  # noqa: SIM118, it is no dictionary
                    part = file.get_slice(name)
                    dtype = part.get_dtype()
                    dtype = _SAFETENSORS_DTYPES.get(dtype, dtype)
                    shape = tuple(part.get_shape())
                    if 0 in shape and max(shape) <= _MAX_LENGTH:
                        self.beside[name] = "it is empty"
                    else:
                        self._add(name, shape, dtype)
                self._check_names()
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def read(self, name: str) -> np.ndarray:
        import safetensors

        self._check_floating(name)
        try:
            # Opened again for each tensor, as the pages that were read of an open file
            # stay in memory.
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
        """Refuses a file of ours whose checksums are not those of its tensors."""
        names = {*self.shapes, *self.beside}
        different = (set(self._checksums) - set(self.metadata)) ^ names
        if self._checksums and different:
            raise ValueError(
                f"{min(different)!r} is not among the names that `keras_vit.save_weights` "
                f"wrote, or the other way round. {_LEFT_OUT}"
            )

    def _check_sum(self, name, data):
        """Refuses data that `save_weights` did not write."""
        expected = self._checksums.get(name)
        if expected is not None and expected != checksum(data):
            raise ValueError(
                f"{name!r} is not as `keras_vit.save_weights` wrote it. {_LEFT_OUT}"
            )


# Key of the CRC-32 of each tensor in the metadata of our files.
CHECKSUMS = "keras_vit.crc32"
_MAX_LENGTH = 2**20  # of an axis of an empty tensor, such as DINOv3's without registers
_LEFT_OUT = f"A program that changed it should have left out {CHECKSUMS!r} of the metadata"


def checksum(data: bytes | np.ndarray) -> int:
    """The CRC-32 of a text or of a tensor's numbers."""
    if isinstance(data, np.ndarray):
        data = data.reshape(-1).view("uint8")
    return zlib.crc32(data)


def _check_header(path):
    """Refuses a name that is there twice; safetensors itself takes the last."""
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
    kind_of_shards = SafetensorsFile

    def __init__(self, path: str):
        super().__init__(path)
        self._files = {}
        places = self._places()
        self.paths.clear()
        for shard in sorted(set(places.values())):
            shard_path = os.path.join(os.path.dirname(path), shard)
            check_exists(shard_path)
            file = self.kind_of_shards(shard_path)
            self.paths.append(shard_path)
            indexed = {name for name, place in places.items() if place == shard}
            if indexed != {*file.shapes, *file.beside}:
                differing = ", ".join(sorted(indexed ^ {*file.shapes, *file.beside})[:4])
                raise self._damaged(f"{shard!r} does not hold what it says: {differing}")
            self.shapes |= file.shapes
            self.dtypes |= file.dtypes
            self.beside |= file.beside
            self.metadata |= file.metadata
            self._files |= dict.fromkeys(file.shapes, file)

    def _places(self):
        """Name of a tensor → name of its file, beside the index."""
        try:
            with open(self.path, encoding="utf-8") as file:
                places = parse_json(file.read())["weight_map"]
            if any(PurePath(name).name != name for name in places.values()):
                raise ValueError("the name of a shard leads out of the folder")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._damaged(error) from error
        return places

    def read(self, name: str) -> np.ndarray:
        return self._files[name].read(name)

    def check(self, name: str) -> None:
        self._files[name].check(name)
