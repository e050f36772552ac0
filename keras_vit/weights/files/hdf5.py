"""HDF5 files of Keras and of KerasHub's presets."""

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.weights.files.tensor_file import DAMAGE_ERRORS, TensorFile

if TYPE_CHECKING:
    import h5py


def datasets(file: "h5py.File") -> dict[str, "h5py.Dataset"]:
    """Name → data set of an open HDF5 file; each is as large as it claims.

    Packed ones, which Keras never writes, are refused, as they can unpack to any size.

    Raises:
        ValueError: if one is packed, in another file or smaller than it claims.
        Exception: one of `DAMAGE_ERRORS`, if the file is damaged.
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


def dtype_of(dataset: "h5py.Dataset") -> str:
    """Name of the dtype; Keras stores bfloat16, unknown to HDF5, as an attribute."""
    name = dataset.dtype.name
    noted = dataset.attrs.get("dtype") == "bfloat16"
    return "bfloat16" if noted and name == "void16" else name


def read(dataset: "h5py.Dataset") -> np.ndarray:
    """Reads the array of a data set, bfloat16 as float32."""
    array = dataset[()]
    if dtype_of(dataset) != "bfloat16":
        return array
    import ml_dtypes

    return np.asarray(array).view(ml_dtypes.bfloat16).astype("float32")


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
                    # Keras numbers its dense layers; their names are attributes.
                    if layer.startswith("layers/dense"):
                        layer = f"layers/{dataset.parent.attrs.get('name', layer)}"
                    ours = f"{layer}/vars/{number}"
                    self._add(ours, dataset.shape, dtype_of(dataset))
                    self._places[ours] = (path, name)
        except DAMAGE_ERRORS as error:
            raise self._damaged(error) from error

    def read(self, name: str) -> np.ndarray:
        import h5py

        self._check_floating(name)
        path, place = self._places[name]
        try:
            with h5py.File(path) as file:
                tensor = read(file[place])
        except DAMAGE_ERRORS as error:
            raise self._damaged(error) from error
        self._check_finite(name, tensor)
        return tensor
