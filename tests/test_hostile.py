"""Files made to run code, to take all memory, to read elsewhere or to say two things:
each is refused at once, by what it is and without harm."""

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import assert_same_weights, weights

import keras_vit

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.one_backend
SIZE = {"image_size": 8, "patch_size": 4, "hidden_dim": 8, "num_layers": 1}
SIZE |= {"num_heads": 2, "mlp_dim": 16, "classes": 3}
KERNEL = {"google": "embedding/kernel", "timm": "patch_embed.proj.weight"}
STACKED = "Transformer/encoderblock/LayerNorm_0/scale"
HUB = "layers/vi_t_patching_and_embedding/patch_embedding/vars/0"
MARKS = ("Transformer/encoder_norm/scale", "norm.weight", "blocks.0.norm1.weight")
MiB, GiB = 1 << 20, 1 << 30


def small():
    return keras_vit.VisionTransformer(**SIZE)


def npy(shape, data=b"", dtype="<f4"):
    """A `.npy` file with a header of our choice."""
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def npz(path, members, packed=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def safetensors(path, header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + data)


def entry(shape, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


class Reduced:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


# What claims or unpacks to more than there is. Each writes a file and gives its path.


def npz_deflated(folder):
    zeros = npy((100 * MiB,), bytes(400 * MiB))
    npz(folder / "m.npz", {KERNEL["google"]: zeros}, zipfile.ZIP_DEFLATED)
    return folder / "m.npz"


def npz_bzip2(folder):
    """Beside honest bytes, so that the sum is plausible."""
    with zipfile.ZipFile(folder / "m.npz", "w") as archive:
        archive.writestr("pad.npy", npy((5 * MiB,), os.urandom(20 * MiB)))
        zeros = npy((90 * MiB,), bytes(360 * MiB))
        archive.writestr(f"{KERNEL['google']}.npy", zeros, zipfile.ZIP_BZIP2)
    return folder / "m.npz"


def npz_says_small(folder):
    """400 MiB, of which the archive says that they are 200 bytes."""
    path = npz_deflated(folder)
    size = struct.pack("<I", len(npy((100 * MiB,))) + 400 * MiB)
    path.write_bytes(path.read_bytes().replace(size, struct.pack("<I", 200)))
    return path


def npz_header(folder, shape=(10**12,), name=KERNEL["google"]):
    npz(folder / "m.npz", {name: npy(shape), MARKS[0]: npy((1,), bytes(4))})
    return folder / "m.npz"


def npz_empty(folder):
    return npz_header(folder, (10**12, 0), STACKED)


def npz_many_blocks(folder):
    members = {STACKED: npy((2 * MiB, 1), os.urandom(2 * MiB) + bytes(2 * MiB), "<f2")}
    npz(folder / "m.npz", members, zipfile.ZIP_DEFLATED)
    return folder / "m.npz"


def safetensors_length(folder, length=2**60):
    safetensors(folder / "m.safetensors", b"{}", length=length)
    return folder / "m.safetensors"


def safetensors_length_4_gib(folder):
    return safetensors_length(folder, 4 * GiB)


def safetensors_claims(folder, shape=(10**6, 10**6, 1, 1), end=10**12 * 4):
    header = dict.fromkeys(MARKS[1:], entry([0], 0)) | {KERNEL["timm"]: entry(shape, end)}
    safetensors(folder / "m.safetensors", header)
    return folder / "m.safetensors"


def safetensors_empty(folder):
    return safetensors_claims(folder, (10**12, 0, 1, 1), 0)


def torch_state(**tensors):
    small_ones = {name: torch.ones(8) for name in MARKS[1:]}
    return collections.OrderedDict(small_ones | tensors)


def torch_view(folder, legacy=False):
    state = torch_state(**{KERNEL["timm"]: torch.zeros(1).expand(30_000, 30_000)})
    torch.save(state, folder / "m.pth", _use_new_zipfile_serialization=not legacy)
    return folder / "m.pth"


def torch_legacy_view(folder):
    return torch_view(folder, legacy=True)


def torch_legacy_storage(folder):
    """A storage of 24 GB, by its description."""
    state = torch_state(x=torch.ones(1234))
    torch.save(state, folder / "m.bin", _use_new_zipfile_serialization=False)
    short, long = (
        b"M" + struct.pack("<H", 1234),
        b"\x8a\x05" + struct.pack("<Q", 6 * 10**9)[:5],
    )
    data = (folder / "m.bin").read_bytes()
    assert short in data
    (folder / "m.bin").write_bytes(data.replace(short, long))
    return folder / "m.bin"


def torch_deflated(folder):
    torch.save(torch_state(x=torch.zeros(100 * MiB)), folder / "m.pth")
    with zipfile.ZipFile(folder / "m.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "m.pth"


def torch_call(folder, *call):
    state = {**torch_state(), "x": Reduced(*call)}
    torch.save(state, folder / "m.pth")
    return folder / "m.pth"


def torch_bytearray(folder):
    return torch_call(folder, bytearray, 2 * GiB)


def torch_new_tensor(folder):
    return torch_call(folder, torch.FloatTensor, 30_000, 30_000)


def h5_file(folder, name, **options):
    """The same dataset for KerasHub's loader and for Keras' own."""
    path = folder / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(name, dtype="f4", **options)
        if name.startswith(HUB):
            file["layers/vi_t_encoder/layer_norm/vars/0"] = np.ones(8, "f4")
    return path


def h5_fill(folder, name=HUB):
    return h5_file(folder, name, shape=(30_000, 30_000), fillvalue=1.5)


def h5_fill_1e12(folder):
    return h5_file(folder, HUB, shape=(10**6, 10**6), fillvalue=1.5)


def h5_gzip(folder, name=HUB):
    shape = (30_000, 10_000)
    return h5_file(folder, name, shape=shape, fillvalue=0, compression="gzip", chunks=True)


def h5_gzip_chunk(folder, name=HUB):
    """One number, in a chunk of 400 MiB."""
    options = {"shape": (8,), "maxshape": (None,), "chunks": (100 * MiB,)}
    path = h5_file(folder, name, compression="gzip", **options)
    with h5py.File(path, "a") as file:
        packed = zlib.compress(bytes(400 * MiB), 1)
        file[name].id.write_direct_chunk((0,), packed)
    return path


OURS = "layers/patch_embedding/vars/0"


def h5_fill_of_keras(folder):
    return h5_fill(folder, OURS)


def h5_gzip_of_keras(folder):
    return h5_gzip(folder, OURS)


def h5_gzip_chunk_of_keras(folder):
    return h5_gzip_chunk(folder, OURS)


def rewritten(path, packed=zipfile.ZIP_STORED, **contents):
    """A `.keras` file with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    contents = {name.replace("_", "."): content for name, content in contents.items()}
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in {**members, **contents}.items():
            archive.writestr(name, content)
    return path


def keras_config(folder, **fields):
    small().save(folder / "m.keras")
    with zipfile.ZipFile(folder / "m.keras") as archive:
        config = json.loads(archive.read("config.json"))
    config["config"] |= fields
    return rewritten(folder / "m.keras", config_json=json.dumps(config))


def keras_wide(folder):
    return keras_config(folder, hidden_dim=20_000, mlp_dim=40_000)


def keras_deep(folder):
    return keras_config(folder, num_layers=10**6)


def keras_large_image(folder):
    return keras_config(folder, image_size=[40_000, 40_000])


def keras_many_classes(folder):
    return keras_config(folder, classes=10**8)


def keras_deflated(folder):
    small().save(folder / "m.keras")
    weights = bytes(400 * MiB)
    return rewritten(folder / "m.keras", zipfile.ZIP_DEFLATED, model_weights_h5=weights)


BOMBS = [
    npz_deflated,
    npz_bzip2,
    npz_says_small,
    npz_header,
    npz_empty,
    npz_many_blocks,
    safetensors_length,
    safetensors_length_4_gib,
    safetensors_claims,
    safetensors_empty,
    torch_view,
    torch_legacy_view,
    torch_legacy_storage,
    torch_deflated,
    torch_bytearray,
    torch_new_tensor,
    h5_fill,
    h5_fill_1e12,
    h5_gzip,
    h5_gzip_chunk,
    h5_fill_of_keras,
    h5_gzip_of_keras,
    h5_gzip_chunk_of_keras,
    keras_wide,
    keras_deep,
    keras_large_image,
    keras_many_classes,
    keras_deflated,
]


def memory():
    """Largest amounts of addresses and memory of this process so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return np.array([int(lines[key].split()[0]) << 10 for key in ("VmPeak", "VmHWM")])


def measure(paths):
    """Loads hostile files, for what they take and how they are refused."""
    import resource

    model = small()
    limit = int(memory()[0]) + 8 * GiB  # lest this machine suffers
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in paths:
        for load in (lambda p: keras_vit.load_weights(model, p), keras_vit.from_pretrained):
            start, before = time.monotonic(), memory()
            try:
                load(path)
                error = None
            except Exception as raised:
                error = [type(raised).__name__, str(raised)]
            taken = (memory() - before).tolist()
            print(json.dumps([path, error, time.monotonic() - start, *taken]), flush=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measurements of each bomb in a process of its own."""
    if not Path("/proc/self/status").exists() or keras.backend.backend() != "torch":
        pytest.skip("measured on Linux, and on one backend, as reading knows none")
    paths = []
    for bomb in BOMBS:
        folder = tmp_path_factory.mktemp(bomb.__name__)
        paths.append(str(bomb(folder)))
    process = subprocess.run(
        [sys.executable, __file__, *paths],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(keras_vit.__file__).parent.parent)},
    )
    rows = [json.loads(line) for line in process.stdout.splitlines() if line[0] == "["]
    assert len(rows) == 2 * len(paths), process.stderr[-2000:]
    by_bomb = collections.defaultdict(list)
    for row in rows:
        by_bomb[row[0]].append(row)
    return dict(
        zip((bomb.__name__ for bomb in BOMBS), map(by_bomb.get, paths), strict=True)
    )


@pytest.mark.parametrize("bomb", [bomb.__name__ for bomb in BOMBS])
def test_bombs_take_no_memory_and_no_time(bomb, measured):
    for path, error, seconds, addresses, used in measured[bomb]:
        assert error, "it was loaded"
        kind, message = error
        assert kind == "ValueError", message
        assert path in message
        assert seconds < 5
        assert used < 100 * MiB, f"{used / MiB:.0f} MiB"
        assert addresses < GiB, f"{addresses / MiB:.0f} MiB"


# What would run code.


def assert_refused(path, message, error=ValueError):
    model = small()
    before = weights(model)
    for load in (lambda: keras_vit.load_weights(model, path), lambda: keras_vit.from_pretrained(path)):  # fmt: skip
        with pytest.raises(error, match=message) as raised:
            load()
        assert type(raised.value) is error
        assert_same_weights(weights(model), before)


@pytest.fixture
def payload(tmp_path):
    """A pickled call that leaves a mark, which is looked for afterwards."""
    mark = tmp_path / "mark"
    yield Reduced(open, str(mark), "w")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Reduced(open, str(mark), "w"))).close()
    assert mark.exists()  # it would have
    mark.unlink()


def test_no_pickle_of_an_npz_is_opened(payload, tmp_path):
    np.savez(tmp_path / "m.npz", **{KERNEL["google"]: np.array([payload], object)})
    assert_refused(tmp_path / "m.npz", "holds pickled objects, which are never opened")


@pytest.mark.parametrize("name", ["m.pth", "m.pt", "pytorch_model.bin"])
@pytest.mark.parametrize("new", [True, False])
def test_no_pickle_of_torch_is_run(payload, name, new, tmp_path):
    state = {**torch_state(), "x": payload}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=new)
    assert_refused(tmp_path / name, "holds 'io open', which no tensor needs")
    (tmp_path / name).write_bytes(pickle.dumps(payload))
    assert_refused(tmp_path / name, f"{name}' is not loaded: it is pickled by protocol 4")


def test_no_lambda_of_a_keras_file_is_run(tmp_path):
    mark = tmp_path / "mark"
    inputs = keras.Input((8, 8, 3))

    def leave(x, path=str(mark)):
        open(path, "w").close()
        return x

    outputs = keras.layers.Lambda(leave, output_shape=(8, 8, 3))(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    mark.unlink(missing_ok=True)
    assert_refused(tmp_path / "m.keras", "m.keras' is not a complete .keras file")
    assert not mark.exists()


# What says two things, or leads elsewhere.


def test_a_name_that_is_there_twice(tmp_path):
    path = tmp_path / "m.safetensors"
    one = json.dumps(entry([2, 3], 24))
    other = json.dumps(entry([3, 2], 24))
    safetensors(
        path, f'{{"norm.weight": {one}, "norm.weight": {other}}}'.encode(), bytes(24)
    )
    assert_refused(path, "m.safetensors' .*'norm.weight' is there twice")
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("cls.npy", npy((1,), bytes(4)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("cls.npy", npy((1,), bytes(4)))
    assert_refused(path, "m.npz' .*'cls.npy' is there twice")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((-8, -8), "claims to be of shape"),
        ((True, 8), "claims to be of shape"),
        ((2**62, 2**62, 0), "claims to be of shape"),
        ((10**30, 0), "claims to be of shape"),
        ((1,) * 33, "claims to be of shape"),
    ],
)
def test_shapes_that_no_tensor_has(header, message, tmp_path):
    content = npy(header, bytes(4 * abs(int(np.prod(header, dtype=object)))))
    npz(tmp_path / "m.npz", {STACKED: content})
    assert_refused(tmp_path / "m.npz", f"m.npz' .*{message}")


def test_a_folder_within_an_archive(tmp_path):
    npz(tmp_path / "m.npz", {"cls": npy((1,), bytes(4))})
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.mkdir("folder.npy")
    assert_refused(tmp_path / "m.npz", "m.npz' .* is not a complete .npz")


def test_members_that_share_their_bytes(tmp_path):
    """A small file that would be many tensors."""
    path = tmp_path / "m.npz"
    npz(path, {f"{i:04}": npy((1000,), os.urandom(4000)) for i in range(2)})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    size = (end - start) // 2
    central = data[start : start + size] * 50
    count = struct.pack("<HH", 50, 50)
    tail = data[end : end + 8] + count + struct.pack("<I", len(central)) + data[end + 16 :]
    path.write_bytes(data[:start] + central + tail)
    assert_refused(path, "claims to hold")


def test_a_head_that_contradicts_itself(tmp_path):
    """It is damaged, and not a head of another size, which may be left out."""
    model = small()
    keras_vit.save_weights(model, tmp_path / "m.npz", layout="google")
    with np.load(tmp_path / "m.npz") as file:
        tensors = dict(file)
    for name, shape in {"bias": (5,), "kernel": (9, 3)}.items():
        np.savez(tmp_path / "m.npz", **{**tensors, f"head/{name}": np.ones(shape)})
        with pytest.raises(ValueError, match=f"m.npz' .*\n.*head/{name}"):
            keras_vit.load_weights(model, tmp_path / "m.npz")


def test_queries_keys_and_values_are_of_one_size(tmp_path):
    """Together they may be as many numbers as they should."""
    from safetensors.numpy import load_file, save_file

    model = small()
    keras_vit.save_weights(model, tmp_path, layout="huggingface")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    query, key = (
        f"vit.encoder.layer.0.attention.attention.{part}.weight"
        for part in ("query", "key")
    )
    both = np.concatenate([tensors[query], tensors[key]])
    tensors[query], tensors[key] = np.split(both, [4])
    save_file(tensors, path)
    with pytest.raises(ValueError, match="its parts are not of one size"):
        keras_vit.load_weights(model, tmp_path)


def test_tensors_that_are_not_as_we_wrote_them(tmp_path):
    """A flipped bit of a `.safetensors` file shows in the checksums that ours have."""
    path = tmp_path / "m.safetensors"
    keras_vit.save_weights(small(), path, layout="timm")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert_refused(path, "m.safetensors' .* is not as `keras_vit.save_weights` wrote it")
    keras_vit.save_weights(small(), path, layout="timm")
    path.write_bytes(path.read_bytes().replace(b'num_heads\\": 2', b'num_heads\\": 4'))
    assert_refused(path, "'keras_vit' is not as `keras_vit.save_weights` wrote it")


def test_a_tensor_without_its_checksum(tmp_path):
    """Another name would hide from the checksum what became of the numbers."""
    path = tmp_path / "m.safetensors"
    keras_vit.save_weights(small(), path, layout="timm")
    path.write_bytes(path.read_bytes().replace(b'"norm.bias":{', b'"norm.Bias":{'))
    assert_refused(path, "'norm.Bias' is not among the names .* wrote")


def test_a_grid_that_is_not_the_configs(tmp_path):
    path = tmp_path / "m.keras"
    small().save(path)
    content = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content[name] = archive.read(name)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        with h5py.File(io.BytesIO(content["model.weights.h5"])) as saved:
            for name in saved:
                saved.copy(name, file)
        positions = file["layers/position_embedding/vars"]
        grid = positions["grid"][()]
        del positions["grid"]
        positions["grid"] = np.concatenate([grid, grid[:1]])
    content["model.weights.h5"] = (tmp_path / "w.h5").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert_refused(path, r"its position grid is of shape \(3, 2, 8\)")


@pytest.mark.parametrize("shard", ["/etc/passwd", "../m.safetensors", "..", "folder", ""])
def test_shards_lie_beside_their_index(shard, tmp_path):
    (tmp_path / "folder").mkdir()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"norm.weight": shard}}))
    if "/" in shard:
        assert_refused(tmp_path, "leads out of the folder")
    else:
        assert_refused(tmp_path, "There is no checkpoint at", FileNotFoundError)


@pytest.mark.parametrize("name", [HUB, OURS])
def test_an_h5_file_reads_no_other_file(name, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(bytes(4 * 384))
    path = h5_file(tmp_path, name, shape=(4, 4, 3, 8), external=[(str(other), 0, 4 * 384)])
    assert_refused(path, "lies in another file|does not tell the architecture")
    model = small()
    with pytest.raises(ValueError, match="lies in another file"):
        keras_vit.load_weights(model, path)


if __name__ == "__main__":
    measure(sys.argv[1:])
