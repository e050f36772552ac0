"""The tensors of Keras' own files under the paths of our variables."""

import contextlib
import re
from typing import Any

import h5py

from keras_vit.weights.files.archives import ZIP_ERRORS, open_member, open_zip
from keras_vit.weights.files.hdf5 import datasets, dtype_of
from keras_vit.weights.files.tensor_file import TensorFile, check_exists, parse_json
from keras_vit.weights.keras_files import WEIGHTS

_TOKENS = ("class_token", "distillation_token", "registers")
_ONE_WEIGHT = {**dict.fromkeys(_TOKENS, "tokens"), "pooling": "probe"}
_UNIT = re.compile(r"layers/((bottleneck|pre_activation)_unit(?:_(\d+))?)/conv_2/.*")


class KerasFile(TensorFile):
    """The names and shapes in a `.keras` or `.weights.h5` file; only Keras reads values.

    Attributes:
        saved: content of the `config.json` of a `.keras` file, else an empty dictionary.
        targets: name of a tensor → path of our variable, for layers of ours.
        optimizer: names of the optimizer's tensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """

    def __init__(self, path: str):
        super().__init__(path)
        self.kind = ".keras file" if path.endswith(".keras") else ".weights.h5 file"
        self.saved: dict[str, Any] = {}
        self.targets: dict[str, str] = {}
        self.optimizer: list[str] = []
        check_exists(path)
        try:
            with contextlib.ExitStack() as stack:
                weights = path
                if path.endswith(".keras"):
                    archive = stack.enter_context(open_zip(path))
                    self.saved = dict(parse_json(archive.read("config.json")))
                    weights = stack.enter_context(open_member(archive, WEIGHTS))
                file = stack.enter_context(h5py.File(weights))
                tensors = datasets(file)
                shapes = {name: item.shape for name, item in tensors.items()}
                units = _names_of_units(shapes)
                for name, dataset in tensors.items():
                    self._note(name, dataset, units, shapes)
        except ZIP_ERRORS as error:
            raise self._damaged(error) from error

    def _note(self, name, item, units, shapes):
        self.shapes[name] = item.shape
        self.dtypes[name] = dtype_of(item)
        if name.startswith("optimizer/"):
            self.optimizer.append(name)
        elif target := _target(name, item.parent.attrs.get("name", ""), units, shapes):
            self.targets[name] = target


def _names_of_units(shapes) -> dict[str, str]:
    """Keras' name of a ResNet's root or unit → ours.

    The units of a stage have twice the filters of the units of the stage before.
    """
    found = [(match, shapes[name]) for name in shapes if (match := _UNIT.fullmatch(name))]
    found.sort(key=lambda pair: int(pair[0][3] or 0))
    stages = sorted({shape[-1] for _, shape in found if shape})
    numbers = dict.fromkeys(stages, 0)
    is_hybrid = any(name.startswith("layers/patch_embedding/") for name in shapes)
    stem = "stem_" if is_hybrid else ""
    names = {"res_net_root": f"{stem}root"}
    for match, shape in found:
        if shape:
            stage, unit = stages.index(shape[-1]), numbers[shape[-1]]
            names[match[1]] = f"{stem}stage_{stage}_unit_{unit}"
            numbers[shape[-1]] += 1
    return names


def _target(name, layer, units, shapes) -> str | None:
    """The path of our variable: Keras numbers the layers of a class and their weights."""
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
    if path.endswith("/attention"):  # biases have the heads' width, frequencies half of it
        kernel = shapes.get(f"{name.rpartition('/vars/')[0]}/qkv/vars/0", ())
        is_bias = kernel[-1:] == shapes[name][-1:]
        return f"{path}/{'query_value_bias' if is_bias else 'frequencies'}"
    if path.endswith("_scale"):
        return f"{path}/scale"
    names = ("gamma", "beta") if re.search(r"norm(_\d)?$", path) else ("kernel", "bias")
    return f"{path}/{_ONE_WEIGHT.get(path, names[int(weight) % 2])}"
