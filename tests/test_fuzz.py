"""Nothing wrong loads silently: mutated files of every format give one clear error and
leave the model as it was, or give exactly what another reader finds in them.

`make fuzz` draws `FUZZ_EXAMPLES` new mutations for each format, `make test` always the
same few.
"""

import collections
import io
import json
import math
import os
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from helpers import path_of, weights
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import keras_vit
from keras_vit.weights.checkpoint import Checkpoint
from keras_vit.weights.layouts.keras_hub import KERAS_HUB
from keras_vit.weights.save import in_layout

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.one_backend
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SIZE = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_dim": 8,
    "num_layers": 1,
    "num_heads": 2,
    "mlp_dim": 16,
    "classes": 3,
}


def some(usual: int, share: float = 1.0):
    """Number of examples: `usual` in `make test`, a share of the total in `make fuzz`."""
    return settings(
        max_examples=math.ceil(FUZZ_EXAMPLES * share) or usual,
        derandomize=not FUZZ_EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# Formats: how a valid file is written, and how another reader than ours reads it.


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint.

    Attributes:
        entry: what is loaded, in a folder of its own.
        write: (tensors, folder) → writes the files.
        read: folder → the tensors by name, by another reader.
        sees_all: whether checksums of the format show every changed bit of a tensor.
        layout: the one of `save_weights` in which the tensors come, or None.
    """

    entry: str
    write: Callable
    read: Callable
    sees_all: bool = False
    layout: str | None = "timm"


def read_npz(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return {  # NumPy writes bfloat16 as two bytes of something
        name: array.view(ml_dtypes.bfloat16) if array.dtype == "V2" else array
        for name, array in arrays.items()
    }


def read_safetensors(path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    dtypes = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": ml_dtypes.bfloat16}
    tensors = {}
    for name, told in header.items():
        start, end = (8 + length + offset for offset in told["data_offsets"])
        array = np.frombuffer(data[start:end], dtypes[told["dtype"]])
        tensors[name] = array.reshape(told["shape"])
    return tensors


def write_safetensors(tensors, path, metadata=None):
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    Path(path).write_bytes(save(tensors, metadata))


def write_ours(tensors, path):
    """With the metadata of the file that is there: its checksums of what was."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert "keras_vit.crc32" in metadata
    write_safetensors(tensors, path, metadata)


def write_shards(tensors, folder):
    places = {
        name: f"model-0000{1 + i % 2}-of-00002.safetensors"
        for i, name in enumerate(tensors)
    }
    for shard in set(places.values()):
        part = {name: array for name, array in tensors.items() if places[name] == shard}
        write_safetensors(part, folder / shard)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index)


def read_shards(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors = {}
    for shard in set(index["weight_map"].values()):
        tensors |= read_safetensors(folder / shard)
    return tensors


def write_torch(tensors, path, legacy=False):
    def tensor(array):
        if array.dtype == ml_dtypes.bfloat16:
            return torch.tensor(array.astype("float32")).bfloat16()
        return torch.tensor(array)

    state = collections.OrderedDict((name, tensor(a)) for name, a in tensors.items())
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)


def read_torch(path):
    tensors = torch.load(path, "cpu", weights_only=True)
    return {name: t.float().numpy() for name, t in tensors.items()}


def read_h5(source):
    tensors = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            tensors[name] = item[()]

    with h5py.File(source) as file:
        file.visititems(note)
    return tensors


def write_h5(tensors, path):
    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            file[name] = array


def write_keras_hub(tensors, folder):
    head = {name: array for name, array in tensors.items() if "/predictions/" in name}
    backbone = {name: array for name, array in tensors.items() if name not in head}
    write_h5(backbone, folder / "model.weights.h5")
    with h5py.File(folder / "task.weights.h5", "w") as file:
        for name, array in head.items():
            file[name.replace("predictions", "dense")] = array
        file.require_group("layers/dense/vars").attrs["name"] = "predictions"


def read_keras_hub(folder):
    head = read_h5(folder / "task.weights.h5")
    head = {name.replace("dense", "predictions", 1): array for name, array in head.items()}
    return read_h5(folder / "model.weights.h5") | head


def read_keras(path):
    with zipfile.ZipFile(path) as archive:
        return read_h5(io.BytesIO(archive.read("model.weights.h5")))


def write_keras(tensors, path):
    """The file that is there, with other weights."""
    members = unzipped(path.read_bytes())
    buffer = io.BytesIO()
    write_h5(tensors, buffer)
    path.write_bytes(zipped(members | {"model.weights.h5": buffer.getvalue()}))


FORMATS = {
    "google": Format(
        "m.npz",
        lambda tensors, folder: np.savez(folder / "m.npz", **tensors),
        lambda folder: read_npz(folder / "m.npz"),
        sees_all=True,
        layout="google",
    ),
    "timm": Format(
        "m.safetensors",
        lambda tensors, folder: write_safetensors(tensors, folder / "m.safetensors"),
        lambda folder: read_safetensors(folder / "m.safetensors"),
    ),
    "ours": Format(  # timm's layout, as `save_weights` writes it
        "m.safetensors",
        lambda tensors, folder: write_ours(tensors, folder / "m.safetensors"),
        lambda folder: read_safetensors(folder / "m.safetensors"),
        sees_all=True,
    ),
    "huggingface": Format(
        ".",
        lambda tensors, folder: write_safetensors(tensors, folder / "model.safetensors"),
        lambda folder: read_safetensors(folder / "model.safetensors"),
        layout="huggingface",
    ),
    "sharded": Format(".", write_shards, read_shards, layout="huggingface"),
    "torch": Format(
        "m.pth",
        lambda tensors, folder: write_torch(tensors, folder / "m.pth"),
        lambda folder: read_torch(folder / "m.pth"),
        sees_all=True,
    ),
    "torch_legacy": Format(
        "m.bin",
        lambda tensors, folder: write_torch(tensors, folder / "m.bin", legacy=True),
        lambda folder: read_torch(folder / "m.bin"),
    ),
    "keras_hub": Format(".", write_keras_hub, read_keras_hub, layout="keras_hub"),
    "keras": Format(
        "m.keras",
        lambda tensors, folder: write_keras(tensors, folder / "m.keras"),
        lambda folder: read_keras(folder / "m.keras"),
        sees_all=True,
        layout=None,
    ),
    "weights_h5": Format(
        "m.weights.h5",
        lambda tensors, folder: write_h5(tensors, folder / "m.weights.h5"),
        lambda folder: read_h5(folder / "m.weights.h5"),
        layout=None,
    ),
}
BESIDE = {  # JSON beside the tensors
    "huggingface": ("config.json", "preprocessor_config.json"),
    "sharded": ("config.json", "model.safetensors.index.json"),
    "keras_hub": ("config.json", "task.json"),
    "keras": ("config.json", "metadata.json"),
}


def tensors_of(model, name, folder):
    """The model's weights as the tensors of a format, by the format's own writers."""
    layout = FORMATS[name].layout
    if layout == "keras_hub":
        backbone = {"image_shape": [8, 8, 3], "num_heads": 2, "use_class_token": True}
        for file, config in (("config", backbone), ("task", {"pooling": "token"})):
            (folder / f"{file}.json").write_text(json.dumps({"config": config}))
        layout = replace(KERAS_HUB, written_prefix=lambda tokens, registers: (tokens,))
        return in_layout(model, layout)[0]
    if layout is None:
        model.save(folder / "m.keras")
        return read_keras(folder / "m.keras")
    endings = {"google": "m.npz", "timm": "m.safetensors", "huggingface": ""}
    keras_vit.save_weights(model, folder / endings[layout], layout=layout)
    if layout == "google":
        return read_npz(folder / "m.npz")
    file = folder / (endings[layout] or "model.safetensors")
    tensors = read_safetensors(file)
    if name != "ours":
        file.unlink()  # whose metadata other tools do not write
    return tensors


class Target:
    """A model to load into, a folder with a valid file, and what belongs where."""

    def __init__(self, name, folder):
        self.format = FORMATS[name]
        self.folder = folder / name
        self.folder.mkdir()
        self.model = keras_vit.VisionTransformer(**SIZE, gelu_approximate=False)
        shapes = [tuple(weight.shape) for weight in self.model.weights]
        sizes = [math.prod(shape) for shape in shapes]
        # Where each number of the file belongs: found once, from a file of 0, 1, 2, …
        self.fill(np.arange(sum(sizes)))
        self.places = tensors_of(self.model, name, self.folder)
        self.fill(np.random.default_rng(0).normal(size=sum(sizes)))
        self.tensors = tensors_of(self.model, name, self.folder)
        self.format.write(self.tensors, self.folder)
        self.content = self.flat()
        if name in ("weights_h5", "keras"):
            for other in self.folder.iterdir():
                if other.name != self.format.entry:
                    other.unlink()
        self.files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self.before = np.random.default_rng(1).normal(size=sum(sizes)).astype("float32")
        self.fill(self.before)

    @property
    def path(self):
        path = self.folder / self.format.entry
        return str(path)

    def fill(self, flat):
        start = 0
        for weight in self.model.weights:
            end = start + math.prod(weight.shape)
            part = np.asarray(flat[start:end], "float32")
            weight.assign(part.reshape(tuple(weight.shape)))
            start = end

    def flat(self):
        arrays = [keras.ops.convert_to_numpy(weight) for weight in self.model.weights]
        return np.concatenate([array.ravel() for array in arrays])

    def write(self, files):
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def expected(self, report):
        """The model's weights by what the other reader finds in the file."""
        expected = self.before.copy()
        told = {}
        for name, array in self.format.read(self.folder).items():
            if name not in report.dropped:
                assert plain(name) not in told, f"{name} is there twice"
                told[plain(name)] = array
        loaded = set(told)
        for name, places in self.places.items():
            at = places.astype(int).ravel()
            name = plain(name)
            if name not in told:
                # Only a head may stay as it was, and the report says so.
                assert report.fresh, f"{name} is missing, and nothing is said of it"
                continue
            loaded.discard(name)
            if told[name].shape != places.shape:
                squeezed = told[name].ravel()
                allowed = bool(report.fresh or report.resized)
                assert allowed or name in (
                    "pos_embed",
                    "Transformer/posembed_input/pos_embedding",
                ), f"{name}: {told[name].shape}"
                if squeezed.size != places.size:
                    expected[at] = np.nan  # not compared
                    continue
            expected[at] = told[name].astype("float32").ravel()
        assert not loaded, f"{loaded} are of no account, and nothing is said of them"
        start = 0
        for weight in self.model.weights:
            end = start + math.prod(weight.shape)
            if path_of(weight) in report.fresh:
                expected[start:end] = self.before[start:end]
            start = end
        return expected

    def from_pretrained(self):
        """Builds what the folder's file holds, or gives one clear error."""
        try:
            model = keras_vit.from_pretrained(self.path)
        except (ValueError, FileNotFoundError) as error:
            self.check_error(error)
        else:
            assert all(np.isfinite(value).all() for value in weights(model).values())

    def check(self, exact=False, **options):
        """Loads the folder's file: one clear error and no change, or what it holds."""
        try:
            with Checkpoint(self.path) if self.format.layout else io.BytesIO() as file:
                file.architecture() if self.format.layout else None
        except (ValueError, FileNotFoundError) as error:
            self.check_error(error)
        try:
            report = keras_vit.load_weights(self.model, self.path, **options)
        except (ValueError, FileNotFoundError) as error:
            self.check_error(error)
            np.testing.assert_array_equal(self.flat(), self.before)
            return None
        try:
            flat = self.flat()
            assert np.isfinite(flat).all()
            if not np.array_equal(flat, self.content):
                expected = self.expected(report)
                compared = ~np.isnan(expected)
                np.testing.assert_array_equal(flat[compared], expected[compared])
                assert not exact or report.fresh or report.resized
        finally:
            self.fill(self.before)
        return report

    def check_error(self, error):
        assert type(error) in (ValueError, FileNotFoundError), repr(error)
        assert str(self.folder) in str(error), str(error)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """A target for each format, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("fuzz"), {}

    def target(name):
        if name not in made:
            made[name] = Target(name, folder)
        return made[name]

    return target


@pytest.mark.parametrize("name", FORMATS)
def test_valid_files_load(name, targets):
    """And so do those of other precisions and byte orders, where a format has them."""
    target = targets(name)
    target.write(target.files)
    report = target.check(exact=True)
    assert len(report.loaded) == len(target.model.weights)
    dtypes = {
        "google": ["float16", "float64", ">f4", ml_dtypes.bfloat16],
        "weights_h5": ["float16", "float64"],
        "keras": ["float16", "float64"],
        "keras_hub": ["float16", "float64"],
        "ours": [],
    }
    for dtype in dtypes.get(name, ["float16", "float64", ml_dtypes.bfloat16]):
        target.write(target.files)
        tensors = {n: array.astype(dtype) for n, array in target.tensors.items()}
        target.format.write(tensors, target.folder)
        assert target.check(), dtype
    if name == "google":
        fortran = {n: np.asfortranarray(array) for n, array in target.tensors.items()}
        target.format.write(fortran, target.folder)
        assert target.check(exact=True)


# Mutations of bytes.


def unzipped(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


EXTREMES = [
    *(value.to_bytes(size, "little") for size in (1, 2, 4, 8) for value in (0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)),
    struct.pack("<Q", 2**60),
    struct.pack("<I", 10**9),
    *(struct.pack("<f", value) for value in (math.nan, math.inf, -math.inf)),
]  # fmt: skip


@st.composite
def positions(draw, size):
    """Anywhere in a file, but as often near its ends, where formats are described."""
    region = draw(st.sampled_from(["all", "start", "end"]))
    last = max(size - 1, 0)
    if region == "start":
        return draw(st.integers(0, min(last, 600)))
    if region == "end":
        return last - draw(st.integers(0, min(last, 1200)))
    return draw(st.integers(0, last))


def mutated(draw, data):
    kinds = ["flip", "cut", "insert", "delete", "double", "zero", "set", "digit", "append"]
    kind = draw(st.sampled_from(kinds))
    at = draw(positions(len(data)))
    length = draw(st.integers(1, 40))
    if kind == "flip":
        return data[:at] + bytes([(data[at : at + 1] or b"\0")[0] ^ draw(st.integers(1, 255))]) + data[at + 1 :]  # fmt: skip
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    if kind == "delete":
        return data[:at] + data[at + length :]
    if kind == "double":
        return data[: at + length] + data[at:]
    if kind == "zero":
        return data[:at] + bytes(length) + data[at + length :]
    if kind == "set":
        value = draw(st.sampled_from(EXTREMES))
        return data[:at] + value + data[at + len(value) :]
    if kind == "digit":
        at = next((i for i in range(at, len(data)) if 48 <= data[i] < 58), at)
        return data[:at] + draw(st.sampled_from([b"0", b"1", b"7", b"99999", b"-1", b"1e400"])) + data[at + 1 :]  # fmt: skip
    return data + draw(st.binary(min_size=1, max_size=64))


def examples_for(name):
    return 60 if name == "keras" else 150


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_bytes(name, targets):
    target = targets(name)

    @some(examples_for(name), 0.6)
    @given(st.data())
    def run(data):
        draw = data.draw
        files = dict(target.files)
        changed = draw(st.sampled_from(sorted(files)))
        inside = zipfile.is_zipfile(io.BytesIO(files[changed])) and draw(st.booleans())
        members = unzipped(files[changed]) if inside else {}
        member = draw(st.sampled_from(sorted(members))) if inside else None
        content = members[member] if inside else files[changed]
        for _ in range(draw(st.integers(1, 2))):
            content = mutated(draw, content)
        files[changed] = zipped(members | {member: content}) if inside else content
        target.write(files)
        target.check(exact=target.format.sees_all and not inside)

    run()


# Mutations of tensors.

NAMES = [
    "../../evil",
    "/etc/passwd",
    "..\\evil",
    "a/../../b",
    "extra",
    "ünï",
    "head.weight",
    "blocks.7.norm1.weight",
    "blocks.99999.norm1.weight",
    "Transformer/encoderblock_1/LayerNorm_0/scale",
    "Transformer/encoderblock/LayerNorm_0/scale",
    "layers/vi_t_encoder/layer_norm/vars/2",
    "mask_token",
]
PREFIXES = ["module.", "backbone.", "model.", "vit.", "params/", "opt/target/", "img/"]
DTYPES = ["float16", "float64", ">f4", "bfloat16", "int32", "int64", "bool", "complex64",
          "uint8", "S4", "object"]  # fmt: skip
VALUES = [math.nan, math.inf, -math.inf, 1e300, -1e39, 3e38]


def plain(name):
    """A tensor's name without what a layout allows before it."""
    prefixes = "|".join(map(re.escape, PREFIXES))
    return re.sub(f"^({prefixes})+", "", name)


def reshaped(draw, array):
    kind = draw(
        st.sampled_from(["flat", "transposed", "outer", "inner", "longer", "empty", "half"])
    )
    if kind == "flat":
        return array.reshape(-1)
    if kind == "transposed":
        return np.ascontiguousarray(array.T)
    if kind == "outer":
        return array[None]
    if kind == "inner":
        return array[..., None]
    if kind == "longer":
        return np.concatenate([array, array[:1]])
    if kind == "empty":
        return array[:0]
    return array[: len(array) // 2]


def changed_tensors(draw, tensors):
    """Tensors with something wrong about one or two of them."""
    kinds = ["rename", "prefix", "swap", "drop", "double", "extra", "shape", "dtype",
             "value", "shift"]  # fmt: skip
    kind = draw(st.sampled_from(kinds))
    name = draw(st.sampled_from(sorted(tensors)))
    tensors = dict(tensors)
    array = tensors[name]
    if kind == "rename":
        tensors[draw(st.sampled_from(NAMES))] = tensors.pop(name)
    elif kind == "prefix":
        prefix = draw(st.sampled_from(PREFIXES))
        if draw(st.booleans()):
            tensors[prefix + name] = tensors.pop(name)
        else:
            tensors = {prefix + other: array for other, array in tensors.items()}
    elif kind == "swap":
        other = draw(st.sampled_from(sorted(tensors)))
        tensors[name], tensors[other] = tensors[other], tensors[name]
    elif kind == "drop":
        names = [n for n in tensors if n.rpartition(".")[0] == name.rpartition(".")[0]]
        for dropped in names if draw(st.booleans()) else [name]:
            del tensors[dropped]
    elif kind == "double":
        tensors[draw(st.sampled_from(PREFIXES)) + name] = array
    elif kind == "extra":
        tensors[draw(st.sampled_from(NAMES))] = np.ones((2, 3), "float32")
    elif kind == "shape":
        tensors[name] = reshaped(draw, array)
    elif kind == "dtype":
        dtype = draw(st.sampled_from(DTYPES))
        dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        tensors[name] = array.astype(dtype)
    elif kind == "value":
        assume(array.size)
        value = draw(st.sampled_from(VALUES))
        # NumPy would refuse what integers cannot hold, as another mutation made them.
        fits = abs(value) <= 3e38 and array.dtype.kind in "fV"  # V: bfloat16
        wide = array.copy() if fits else array.astype("float64")
        wide.ravel()[draw(st.integers(0, array.size - 1))] = value
        tensors[name] = wide
    else:  # rows of one tensor go to another, so that together they are as many
        alike = [other for other in sorted(tensors) if tensors[other].shape == array.shape and other != name]  # fmt: skip
        assume(alike)
        other = draw(st.sampled_from(alike))
        both = np.concatenate([array, tensors[other]])
        tensors[name], tensors[other] = np.split(both, [len(array) // 2])
    return tensors


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_tensors(name, targets):
    target = targets(name)

    @some(examples_for(name), 0.5)
    @given(st.data())
    def run(data):
        tensors = target.tensors
        for _ in range(data.draw(st.integers(1, 2))):
            assume(tensors)
            try:
                tensors = changed_tensors(data.draw, tensors)
            except (TypeError, ValueError, OverflowError):  # of what the first left
                assume(False)
        target.write(target.files)
        try:
            target.format.write(tensors, target.folder)
        except Exception:  # what a format cannot say is no file of it
            assume(False)
        skip = data.draw(st.booleans())
        target.check(exact=name == "ours", skip_mismatched_head=skip)
        if name != "weights_h5" and not data.draw(st.integers(0, 19)):
            target.from_pretrained()

    run()


# Mutations of the JSON beside.

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 10),
    st.sampled_from([10**9, 10**30, 10**400, 1e308, math.nan, math.inf, 0.5, -1.0]),
    st.sampled_from(["", "4", "gap", "map", "../evil", "/etc/passwd", "\0", "\ud800", "x" * 5000]),
    st.sampled_from([[], {}, [4], [4, 4, 4], [None, 4], [1e999, 4], {"height": 8}, [[8, 8]]]),
    st.sampled_from(["<deep>", "<digits>", "<twice>"]),
)  # fmt: skip


def odd_json(draw, config):
    """The text of a JSON file with a strange value somewhere in it."""
    config = json.loads(json.dumps(config))
    place = config
    while True:
        key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else draw(st.integers(0, len(place) - 1))  # fmt: skip
        if not (isinstance(place[key], dict | list) and place[key]) or not draw(
            st.integers(0, 3)
        ):
            break
        place = place[key]
    odd = draw(ODD)
    if odd is None and draw(st.booleans()):
        del place[key]
    elif odd == "<twice>" and isinstance(place, dict):
        place[f"{key}<twice>"] = draw(st.sampled_from([1, 4, "gelu_new", [6, 6], None]))
    else:
        place[key] = odd
    text = json.dumps(config).replace("<twice>", "")
    text = text.replace('"<deep>"', "[" * 100_000 + "]" * 100_000)
    return text.replace('"<digits>"', "9" * 5000)


@pytest.mark.parametrize("name", BESIDE)
def test_mutated_json(name, targets):
    target = targets(name)

    @some(100, 0.2)
    @given(st.data())
    def run(data):
        file = data.draw(st.sampled_from(BESIDE[name]))
        archive = unzipped(target.files["m.keras"]) if name == "keras" else {}
        valid = (archive or target.files)[file]
        text = odd_json(data.draw, json.loads(valid)).encode(errors="surrogatepass")
        if archive:
            target.write({"m.keras": zipped(archive | {file: text})})
        else:
            target.write(target.files | {file: text})
        target.check()
        if not data.draw(st.integers(0, 4)):
            target.from_pretrained()

    run()
