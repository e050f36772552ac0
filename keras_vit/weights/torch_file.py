"""torch's state dicts."""

import io
import mmap
import os
import re

from keras_vit.weights.archives import ZIP_ERRORS, open_zip
from keras_vit.weights.tensor_file import TensorFile

# Where training scripts put the weights.
NESTED = ("state_dict", "model", "teacher", "module")


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
