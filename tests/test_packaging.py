"""One state dict as training scripts pack it: it is found, or one error tells what to do."""

import argparse
import collections
import datetime
import json
import logging
import pathlib
import pickle
import shutil
import types

import numpy as np
import pytest
from helpers import REFERENCE, assert_close, assert_same_weights, reference, weights
from safetensors.numpy import load_file, save_file

import keras_vit
from keras_vit.cli import main
from keras_vit.weights.checkpoint import Checkpoint

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.one_backend

CASE = "timm_token"
PREFIXES = (
    "module.",
    "model.model.",
    "_orig_mod.module.",
    "module.base_encoder._orig_mod.",
    "0.",
    "a.b.c.d.",
    "my-net_1.",
)
KEYS = ("state_dict", "student", "model_state_dict", "ema", "params", "weird key")


@pytest.fixture(scope="module")
def state():
    return load_file(REFERENCE / CASE / "model.safetensors")


@pytest.fixture(scope="module")
def expected(state):
    """The array that each of our variables must be."""
    with Checkpoint(REFERENCE / CASE / "model.safetensors", overrides=HEADS) as checkpoint:
        return dict(checkpoint.read(set(checkpoint.shapes)))


HEADS = {"num_heads": 4}


def tensors(state, prefix="", factor=1):
    return collections.OrderedDict(
        (prefix + name, torch.tensor(array * np.float32(factor)))
        for name, array in state.items()
    )


def assert_holds(path, expected, factor=1, **options):
    """Checks that a file holds exactly the variables expected; gives the checkpoint."""
    with Checkpoint(path, overrides=HEADS, **options) as checkpoint:
        assert not checkpoint.unused
        assert checkpoint.shapes.keys() == expected.keys()
        for name, array in checkpoint.read(set(expected)):
            np.testing.assert_array_equal(array, expected[name] * np.float32(factor))
        return checkpoint


@pytest.fixture
def saved(tmp_path):
    def save(content, name="m.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


# One ViT, however deep.


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix(prefix, state, expected, saved, tmp_path):
    """Also under a key, with counters and more beside, and in .safetensors."""
    beside = {"epoch": torch.tensor(3), "criterion.weight": torch.ones(10)}
    path = saved({"net": {**tensors(state, prefix), **beside}})
    checkpoint = assert_holds(path, expected)
    assert set(checkpoint.dropped) == {"net.epoch", "net.criterion.weight"}
    assert all("is outside of" in why for why in checkpoint.dropped.values())
    names = {prefix + name: array for name, array in state.items()}
    beside = {name: tensor.numpy() for name, tensor in beside.items()}
    save_file({**names, **beside}, tmp_path / "m.safetensors")
    checkpoint = assert_holds(tmp_path / "m.safetensors", expected)
    assert set(checkpoint.dropped) == set(beside)


@pytest.mark.parametrize("key", KEYS)
def test_a_key(key, state, expected, saved):
    optimizer = {"state": {0: {"exp_avg": torch.ones(48, 3, 8, 8)}}, "param_groups": []}
    path = saved({key: tensors(state), "optimizer": optimizer, "loss": torch.tensor(1.2)})
    checkpoint = assert_holds(path, expected)
    assert set(checkpoint.dropped) == {"optimizer.state.0.exp_avg", "loss"}


def test_dictionaries_for_each_module(state, expected, saved):
    """As trees of parameters are nested, with numbers for blocks."""
    tree = {}
    for name, tensor in tensors(state).items():
        *parts, last = name.split(".")
        node = tree
        for part in parts:
            node = node.setdefault(int(part) if part.isdigit() else part, {})
        node[last] = tensor
    assert_holds(saved([tree, {"step": 3}]), expected)


def test_wrappers_within_names(state, expected, saved):
    """Compiled, sharded and rematerialised block by block."""
    wrapped = {
        name.replace("blocks.0.", "blocks.0._orig_mod.")
        .replace("blocks.1.", "_fsdp_wrapped_module.blocks.1._checkpoint_wrapped_module.")
        .replace("blocks.1.attn.", "blocks.1.attn._fsdp_wrapped_module."): tensor
        for name, tensor in tensors(state).items()
    }
    assert_holds(saved(wrapped), expected)


class Settings:
    """A class of the script that wrote a file."""

    def __init__(self):
        self.lr = 1e-3


class EasyDict(dict):
    """A dictionary of another package."""


class Config(dict):
    """A dictionary whose name does not say so."""


BESIDE = {
    "epoch": 3,
    "config": Config(lr=1e-3),
    "recent": collections.deque([1.0, 2.0], maxlen=5),
    "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("out")),
    "hyper_parameters": EasyDict(lr=1e-3),
    "settings": Settings(),
    "best": np.float64(0.8),
    "step": np.int64(3),
    "curve": np.arange(3.0),
    "numpy": np.random.RandomState(0).get_state(),
    "history": collections.defaultdict(list, loss=[1.0]),
    "when": datetime.datetime(2024, 1, 2),
    "space": types.SimpleNamespace(a=1),
    "set": {1, 2},
    "none": None,
    "loss": torch.tensor(1.2),
    "buffer": torch.zeros(0),
    "mask": torch.ones(3, dtype=torch.bool),
}


@pytest.mark.parametrize("new", [True, False])
def test_what_scripts_leave_beside(new, state, expected, saved):
    content = {"state_dict": tensors(state), **BESIDE}
    path = saved(content, _use_new_zipfile_serialization=new)
    checkpoint = assert_holds(path, expected)
    assert set(checkpoint.dropped) == {"loss", "buffer", "mask"}


class Call:
    """Pickles as a call of a function of another package."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return leave, self.arguments


def leave(path):
    pathlib.Path(path).touch()


def test_what_lies_beside_is_not_run(state, expected, saved, tmp_path):
    mark = tmp_path / "mark"
    content = {"state_dict": tensors(state), "x": Call(str(mark))}
    assert_holds(saved(content), expected)
    assert not mark.exists()
    torch.load(tmp_path / "m.pth", weights_only=False)
    assert mark.exists()  # it would have


@pytest.mark.parametrize("name", ["m.ckpt", "m.pth.tar", "m.tar", "m.pt", "m.pyth"])
def test_endings(name, state, expected, saved):
    """Lightning's `.ckpt`, with a metric and a criterion's weights."""
    content = {
        **tensors(state, "model."),
        "criterion.weight": torch.ones(5),
        "train_acc.tp": torch.zeros(5, dtype=torch.long),
    }
    lightning = {"pytorch-lightning_version": "2.4.0", "state_dict": content, "loops": {}}
    assert_holds(saved(lightning, name), expected)


def test_shards_of_torch(state, expected, tmp_path, saved):
    places = {
        name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(state)
    }
    for shard in set(places.values()):
        part = {n: t for n, t in tensors(state).items() if places[n] == shard}
        saved(part, shard)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_holds(index, expected)
    assert_holds(tmp_path, expected)
    (tmp_path / shard).unlink()
    with pytest.raises(FileNotFoundError, match=shard):
        Checkpoint(tmp_path)


def test_counters_without_a_prefix(state, expected, saved):
    counter = {"train_acc.tp": torch.zeros(5, dtype=torch.long)}
    checkpoint = assert_holds(saved({**tensors(state), **counter}), expected)
    assert checkpoint.dropped == {"train_acc.tp": "it counts, and is no weight"}
    path = saved({**tensors(state), "criterion.weight": torch.ones(5)})
    with pytest.raises(
        ValueError, match=r"not in the model: criterion\.weight(.|\n)*remove"
    ):
        keras_vit.from_pretrained(path, **HEADS)


def test_the_encoder_of_mae_with_its_decoder(state, expected, saved):
    decoder = {
        "mask_token": torch.zeros(1, 1, 32),
        "decoder_pos_embed": torch.zeros(1, 17, 32),
        "decoder_embed.weight": torch.ones(32, 48),
        "decoder_blocks.0.norm1.weight": torch.ones(32),
        "decoder_blocks.0.attn.qkv.weight": torch.ones(96, 32),
        "decoder_norm.weight": torch.ones(32),
        "decoder_pred.bias": torch.ones(192),
    }
    path = saved({"model": {**tensors(state), **decoder}})
    checkpoint = assert_holds(path, expected)
    assert set(checkpoint.dropped) == {f"model.{name}" for name in decoder}
    assert all("only pre-training uses it" in w or "only masked" in w or "which only" in w
               for w in checkpoint.dropped.values())  # fmt: skip


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.vit_encoder.", "net."])
@pytest.mark.parametrize("base", ["vit.", ""])
def test_hugging_face_behind_a_prefix(prefix, base, tmp_path):
    case = REFERENCE / "hf_vit"
    names = load_file(case / "model.safetensors")
    with Checkpoint(case) as checkpoint:
        expected = dict(checkpoint.read(set(checkpoint.shapes)))
    stripped = {name.removeprefix("vit."): array for name, array in names.items()}
    head = [name for name in stripped if name.startswith("classifier")]
    assert len(head) == 2
    renamed = {
        prefix + (name if name in head else base + name): array
        for name, array in stripped.items()
    }
    save_file(renamed, tmp_path / "m.safetensors")
    assert_holds(tmp_path / "m.safetensors", expected)


# Several ViTs.


def test_weights_and_their_average(state, expected, saved, caplog):
    content = {"state_dict": tensors(state), "state_dict_ema": tensors(state, "module.", 2)}
    path = saved(content)
    with caplog.at_level(logging.WARNING, "keras_vit"):
        checkpoint = assert_holds(path, expected)
    assert "Loading the one under the key 'state_dict'" in caplog.text
    assert "'state_dict_ema.module'" in caplog.text
    reasons = set(checkpoint.dropped.values())
    assert reasons == {"it belongs to another ViT, under key='state_dict_ema.module'"}
    caplog.clear()
    for key in ("state_dict_ema", "state_dict_ema.module", "state_dict_ema.module."):
        assert_holds(path, expected, factor=2, key=key)
    assert_holds(path, expected, key="state_dict")
    assert not caplog.text


@pytest.mark.parametrize(
    ("taken", "other"),
    [
        ("teacher", "student"),
        ("teacher.backbone", "student.backbone"),
        ("module.base_encoder", "module.momentum_encoder"),
        ("model", "ema_model.module"),
        ("net", "netEMA"),
        ("", "ema"),
    ],
)
def test_pairs_in_one_state_dict(taken, other, state, expected, tmp_path, caplog):
    names = {
        (f"{key}." if key else "") + name: array * np.float32(factor)
        for key, factor in ((taken, 1), (other, 3))
        for name, array in state.items()
    }
    path = tmp_path / "m.safetensors"
    save_file(names, path)
    with caplog.at_level(logging.WARNING, "keras_vit"):
        assert_holds(path, expected)
    assert f"under the key {taken!r}" in caplog.text
    assert_holds(path, expected, key=taken)
    assert_holds(path, expected, factor=3, key=other)


def test_what_nothing_tells_is_asked(state, expected, saved):
    path = saved({"best": tensors(state), "last": tensors(state, factor=2)})
    with pytest.raises(ValueError, match="2 ViTs in it.*`key=…`, one of 'best', 'last'"):
        keras_vit.from_pretrained(path)
    assert_holds(path, expected, factor=2, key="last")
    with pytest.raises(ValueError, match="no ViT among the 0 .*'ema'.*'best', 'last'"):
        keras_vit.from_pretrained(path, key="ema")


def test_the_key_by_every_way(state, saved, tmp_path, capsys):
    """The functions and the command line take it; without a choice it is an error."""
    path = saved({"state_dict": tensors(state, factor=2), "ema": tensors(state)})
    logits = reference(CASE)["logits"]
    options = {"key": "ema", "num_heads": 4, "classifier_activation": None}
    model = keras_vit.from_pretrained(path, **options)
    assert_close(model(reference(CASE)["input"]), logits)
    other = keras_vit.from_pretrained(path, **{**options, "key": None})
    report = keras_vit.load_weights(other, path, key="ema")
    assert_close(other(reference(CASE)["input"]), logits)
    assert "dropped state_dict.blocks.0.attn.proj.bias, state_dict" in str(report)
    assert "tensors): it is outside of key='ema'" in str(report)
    target = tmp_path / "m.safetensors"
    assert (
        main(["convert", str(path), str(target), "--key", "ema", "--num-heads", "4"]) == 0
    )
    written = load_file(target)
    assert all((written[name] == array).all() for name, array in state.items())
    assert main(["inspect", str(path), "--key", "ema", "--num-heads", "4"]) == 0
    assert "is outside of key='ema'" in capsys.readouterr().out
    model.save(tmp_path / "m.keras")
    for source in (model, tmp_path / "m.keras"):
        with pytest.raises(ValueError, match="which is one model. Leave it out"):
            keras_vit.from_pretrained(source, key="ema")


# What is left out is said, and nothing that the ViT needs.


@pytest.mark.parametrize(
    ("prefix", "head", "width"),
    [
        ("backbone.", "classifier.weight", 48),
        ("model.encoder.vit.", "head.weight", 48),  # of a module further out
        ("backbone.", "linear_head.weight", 2 * 48),  # class token and mean in a row
    ],
)
def test_a_head_beside_is_said(prefix, head, width, state, saved, caplog):
    body = {n: t for n, t in tensors(state, prefix).items() if ".head." not in n}
    others = {f"neck.{i}.weight": torch.ones(5, 48) for i in range(9)}
    others["optimizer.0"] = torch.ones(5, 48)
    path = saved({**body, head: torch.ones(5, width), **others})
    with caplog.at_level(logging.WARNING, "keras_vit"):
        model = keras_vit.from_pretrained(path, **HEADS)
    assert f"beside it {head}, neck.0.weight, " in caplog.text
    assert "neck.3.weight and 5 more, which may be its head" in caplog.text
    assert model.get_config()["classes"] == 0
    caplog.clear()
    keras_vit.from_pretrained(path, key=prefix[:-1], **HEADS)
    assert not caplog.text


@pytest.mark.parametrize("part", ["pos_embed", "cls_token", "norm.weight"])
def test_a_part_of_the_vit_that_lies_outside(part, state, saved):
    names = tensors(state, "vit.")
    names[part] = names.pop(f"vit.{part}")
    with pytest.raises(ValueError, match=rf"'{part}' is named as a part .*key='vit'"):
        keras_vit.from_pretrained(saved(names), **HEADS)


# Complete files that are no state dicts.


def complete(path, message):
    with pytest.raises(ValueError, match=message) as raised:
        keras_vit.from_pretrained(path)
    assert str(path) in str(raised.value)
    assert "download" not in str(raised.value)
    assert "`torch.save(model.state_dict(), path)`" in str(raised.value)


def test_complete_files_are_not_called_damaged(state, saved, tmp_path):
    complete(saved(torch.nn.Linear(2, 2)), "holds 'torch.nn.modules.linear Linear'")
    complete(saved({"epoch": 3}), "no tensor of torch, but a dictionary with 'epoch'")
    complete(saved({"w": np.ones(3)}), "no tensor of torch, but a dictionary with 'w'")
    for new in (True, False):
        options = {"pickle_protocol": 4, "_use_new_zipfile_serialization": new}
        complete(saved(tensors(state), **options), "is pickled by protocol 4")
    (tmp_path / "p.pth").write_bytes(pickle.dumps(state, protocol=2))
    complete(tmp_path / "p.pth", "is a pickle, but not one of `torch.save`")
    program = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(program, tmp_path / "m.pt")
    complete(tmp_path / "m.pt", "program of TorchScript")
    np.savez(tmp_path / "m.npz", a=np.ones(3))
    complete(saved({"w": torch.ones(2), "f": print}), "holds '__builtin__ print'")
    complete((tmp_path / "m.npz").rename(tmp_path / "n.pth"), "without 'data.pkl'")


def test_files_of_another_kind_than_their_ending(state, saved, tmp_path):
    archive, old = saved(tensors(state), "a.pt"), tmp_path / "o.pt"
    torch.save(tensors(state), old, _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "s.pt")
    contents = {
        "it is an archive, as torch": (archive.read_bytes(), ".safetensors"),
        "it is a pickle, as torch": (old.read_bytes(), ".npz"),
        "rename it to .safetensors": ((tmp_path / "s.pt").read_bytes(), ".bin"),
        "`git lfs pull` fetches it": (
            b"version https://git-lfs.github.com/spec/v1",
            ".bin",
        ),
        "is a web page": (b"\n<!DOCTYPE html><html></html>", ".safetensors"),
    }
    for message, (content, ending) in contents.items():
        path = tmp_path / f"file{ending}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as raised:
            keras_vit.from_pretrained(path)
        assert "download it again" not in str(raised.value)


def test_damaged_files_are(state, saved):
    path = saved(tensors(state))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="delete it and download it again"):
        keras_vit.from_pretrained(path)
    path = saved(tensors(state), _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="delete it and download it again"):
        keras_vit.from_pretrained(path)


def test_dictionaries_without_end(saved):
    """Small files whose dictionaries hold one another, many times or for ever."""
    node = {"a": torch.ones(1)}
    for _ in range(40):
        node = {"a": node, "b": node}
    circle = {}
    circle["a"] = circle
    for content in (node, circle):
        with pytest.raises(ValueError, match="hold one another without end"):
            keras_vit.from_pretrained(saved(content))


def test_empty_tensors_are_left_aside(tmp_path):
    """transformers writes tokens of shape (1, 0, width) for DINOv3 without registers."""
    tensors = load_file(REFERENCE / "timm_token" / "model.safetensors")
    tensors["register_tokens"] = np.zeros((1, 0, 48), "float32")
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(REFERENCE / "timm_token" / "config.json", tmp_path)
    read = keras_vit.from_pretrained(tmp_path)
    expected = keras_vit.from_pretrained(REFERENCE / "timm_token")
    assert_same_weights(weights(read), weights(expected))
