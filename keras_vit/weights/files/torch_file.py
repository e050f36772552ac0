"""Files of tensors that torch wrote."""

import io
import mmap
import os
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np

from keras_vit.weights.files.archives import ZIP_ERRORS, open_zip
from keras_vit.weights.files.pickles import empty_class, full_name, is_part_of_tensor
from keras_vit.weights.files.safetensors_files import ShardedFile
from keras_vit.weights.files.tensor_file import TensorFile


class TorchFile(TensorFile):
    """A file of `torch.save`, read by torch without running code of the file.

    Tensors in nested dictionaries have the keys before their names:
    `state_dict.blocks.0.norm1.weight`.
    """

    kind = "state dict of tensors"

    def __init__(self, path: str):
        super().__init__(path)
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"Reading {path!r} needs torch. Install it, or use the checkpoint as "
                ".safetensors."
            ) from error
        self._tensors = {}
        content = self._load(torch)
        for name, tensor in self._tensors_in(torch, content):
            self._add_tensor(name, tensor)
        if not self._tensors:
            what = f"a {type(content).__name__}"
            if isinstance(content, dict):
                what = f"a dictionary with {', '.join(map(repr, list(content)[:8]))}"
            raise self._refused(f"it holds no tensor of torch, but {what}")

    def _tensors_in(self, torch, content) -> Iterator:
        """(name, tensor) for each place of a tensor in dictionaries and lists."""
        left = min(_MAX_ITEMS, os.path.getsize(self.path))
        stack = [((), content)]
        while stack:
            parts, item = stack.pop()
            left -= 1
            if left < 0 or len(parts) > _MAX_DEPTH:
                raise self._damaged("its dictionaries hold one another without end")
            if isinstance(item, torch.Tensor):
                yield ".".join(parts), item
            elif isinstance(item, dict):
                pairs = [((*parts, str(key)), value) for key, value in item.items()]
                stack += reversed(pairs)
            elif isinstance(item, list | tuple):
                pairs = [((*parts, str(i)), value) for i, value in enumerate(item)]
                stack += reversed(pairs)

    def _add_tensor(self, name, tensor):
        if reason := _no_weight(tensor):
            self.beside[name] = reason
            return
        try:
            dtype = str(tensor.dtype).removeprefix("torch.")
            self._add(name, tuple(tensor.shape), dtype)
        except ValueError as error:
            raise self._refused(error) from error
        self._tensors[name] = tensor

    def check_claims(self, names: Iterable[str]) -> None:
        # Views can repeat their numbers without end; tied weights repeat them once.
        claimed = 0
        for name in names:
            tensor = self._tensors[name]
            claimed += tensor.numel() * tensor.element_size()
            if claimed > 2 * os.path.getsize(self.path):
                raise self._damaged(f"{name!r} claims to be of shape {self.shapes[name]}")

    def _load(self, torch):
        import pickle

        try:
            objects = self._check_archive()
        except _RefusedError as error:
            raise self._refused(error) from error
        except ZIP_ERRORS as error:
            raise self._damaged(str(error) or type(error).__name__) from error
        ignored = [(empty_class(name), name) for name in sorted(objects)]
        try:
            with torch.serialization.safe_globals(ignored):
                return torch.load(self.path, "cpu", weights_only=True)
        except (*ZIP_ERRORS, pickle.UnpicklingError, AssertionError) as error:
            # The next sentence of torch suggests to trust the file.
            reason = str(error).partition("\n")[0].partition(". ")[0]
            reason = reason or type(error).__name__
            if isinstance(error, pickle.UnpicklingError) and self._is_archive():
                # Its checksums are right, so it is not damaged.
                raise self._refused(reason) from error
            raise self._damaged(reason) from error

    def _is_archive(self):
        with open(self.path, "rb") as file:
            return file.read(4) == b"PK\x03\x04"

    def _check_archive(self) -> set[str]:
        """Checks what torch does not: checksums, and sizes that are only claimed.

        Returns the names of the classes in it that weights do not need.
        """
        if not self._is_archive():  # of torch before 1.6: pickles in a row
            objects = set()
            with (
                open(self.path, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pickles,
            ):
                for i in range(_LEGACY_PICKLES):
                    objects |= self._check_pickle(pickles)
                    if i == 0 and pickles.tell() == len(pickles):
                        raise _RefusedError("it is a pickle, but not one of `torch.save`")
            return objects
        with open_zip(self.path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged!r} is another")
            return self._check_members(archive)

    def _check_members(self, archive: zipfile.ZipFile) -> set[str]:
        names = archive.namelist()
        parts = {name.rpartition("/")[2] for name in names}
        if "constants.pkl" in parts:
            raise _RefusedError("it holds a program of TorchScript, not weights alone")
        if "data.pkl" not in parts:
            raise _RefusedError("it is an archive without 'data.pkl', which torch writes")
        pickles = [archive.read(name) for name in names if name.endswith(".pkl")]
        return set().union(*(self._check_pickle(io.BytesIO(data)) for data in pickles))

    def _check_pickle(self, file) -> set[str]:
        """Refuses classes that torch would create and no state dict needs.

        Returns the names of the classes to replace by empty ones.
        """
        import pickletools

        size, number, objects, refused = os.path.getsize(self.path), None, set(), []
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "PROTO" and argument > _PROTOCOL:
                raise _RefusedError(
                    f"it is pickled by protocol {argument}, and torch reads weights alone "
                    f"by protocols up to {_PROTOCOL}"
                )
            if opcode.name == "GLOBAL" and not is_part_of_tensor(argument):
                if empty_class(name := full_name(argument)):
                    objects.add(name)
                else:
                    refused.append(argument)
            if isinstance(argument, int) and "PUT" not in opcode.name:
                number = argument
            # It refers to a storage, whose last field is its number of elements.
            if opcode.name == "BINPERSID" and number is not None and number > size:
                raise ValueError(f"it claims to hold {number:,} numbers")
        if refused:
            raise _RefusedError(f"it holds {refused[0]!r}, which no tensor needs")
        return objects

    def _refused(self, reason):
        return ValueError(
            f"{self.path!r} is not loaded: {reason}. Files of torch may hold dictionaries "
            "of tensors and plain values; other objects could run code, or are no weights. "
            "Where the file comes from, save only the weights: "
            "`torch.save(model.state_dict(), path)`."
        )

    def read(self, name: str) -> np.ndarray:
        self._check_floating(name)
        self.check_claims([name])
        tensor = self._tensors[name].detach().contiguous()
        if self.dtypes[name] == "bfloat16":  # which NumPy does not know
            tensor = tensor.float()
        tensor = tensor.numpy()
        self._check_finite(name, tensor)
        return tensor


class TorchShards(ShardedFile):
    """Several `.bin` files of torch under one index."""

    kind = "index of torch's files"
    kind_of_shards = TorchFile

    def check_claims(self, names: Iterable[str]) -> None:
        for name in names:
            self._files[name].check_claims([name])


class _RefusedError(ValueError):
    """A file that is complete, but holds more than weights."""


_LEGACY_PICKLES = 5  # two numbers of versions, system, state dict, keys of storages
_PROTOCOL = 3
_MAX_ITEMS, _MAX_DEPTH = 1_000_000, 64


def _no_weight(tensor) -> str | None:
    """The reason why a tensor can be no weight, or None."""
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        return "it is sparse or quantized by torch"
    if tensor.device.type != "cpu":
        return "it has a shape and no numbers"  # of the device "meta"
    if not tensor.numel():
        return "it is empty"
    return None
