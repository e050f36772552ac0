"""Opening of a file of tensors by its ending."""

import os

from keras_vit.weights.files.hdf5 import H5File
from keras_vit.weights.files.npz import NpzFile
from keras_vit.weights.files.safetensors_files import SafetensorsFile, ShardedFile
from keras_vit.weights.files.tensor_file import TensorFile, check_exists
from keras_vit.weights.files.torch_file import TorchFile, TorchShards

_KINDS = {
    ".npz": NpzFile,
    ".safetensors": SafetensorsFile,
    ".safetensors.index.json": ShardedFile,
    ".bin.index.json": TorchShards,
    ".pth": TorchFile,
    ".pt": TorchFile,
    ".bin": TorchFile,
    ".ckpt": TorchFile,  # Lightning
    ".tar": TorchFile,  # .pth.tar, which is no archive of tar
    ".pyth": TorchFile,
    ".h5": H5File,
}
ENDINGS = (*_KINDS, ".keras")
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.weights.h5",
)
BEST = "best.keras"  # in the folder of a run


def in_folder(path: str) -> str:
    """The best checkpoint of a run's folder; another path as it is."""
    best = os.path.join(path, BEST)
    others = (os.path.join(path, name) for name in FOLDER_FILES)
    return best if os.path.isfile(best) and not any(map(os.path.isfile, others)) else path


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Opens a file, or a folder with `model.safetensors`, by its ending.

    Raises:
        FileNotFoundError: if there is no such file, or no checkpoint in the folder.
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
        "If the file is one of these, rename it."
    )


def _file_in_folder(path):
    for name in FOLDER_FILES:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise FileNotFoundError(
        f"There is no checkpoint in the folder {path!r}. Expected one of "
        f"{', '.join(FOLDER_FILES)}."
    )
