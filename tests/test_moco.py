"""Files of MoCo v3: its encoder alone is loaded, with the heads of its paper."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import assert_same_weights, tiny, weights
from safetensors.numpy import load_file

import keras_vit
from keras_vit.models.sizes import SIZES
from keras_vit.presets import PRESETS
from keras_vit.weights.checkpoint import Checkpoint
from keras_vit.zoo import pretrained

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.one_backend

BASE, MOMENTUM = "module.base_encoder", "module.momentum_encoder"
HEADS = {"num_heads": 4}


def tensors(model, folder):
    """torch's tensors of a model, by the names of timm's class."""
    keras_vit.save_weights(model, folder / "plain.safetensors", layout="timm")
    state = load_file(folder / "plain.safetensors")
    return {name: torch.tensor(array) for name, array in state.items()}


def mlp(prefix, *sizes):
    """The tensors of its MLPs: dense layers without biases, a batch norm after each, which
    learns nothing after the last, and ReLUs between them."""
    state, last = {}, len(sizes) - 2
    for i in range(last + 1):
        norm = f"{prefix}.{3 * i + 1}"
        state[f"{prefix}.{3 * i}.weight"] = torch.ones(sizes[i + 1], sizes[i])
        for part in ("running_mean", "running_var", *("weight", "bias") * (i < last)):
            state[f"{norm}.{part}"] = torch.ones(sizes[i + 1])
        state[f"{norm}.num_batches_tracked"] = torch.tensor(5)
    return state


def pretraining(encoder):
    """The file of a pre-training, whose momentum encoder is twice the encoder."""
    state = {}
    for prefix, factor in ((BASE, 1), (MOMENTUM, 2)):
        state |= {f"{prefix}.{name}": factor * t for name, t in encoder.items()}
        state |= mlp(f"{prefix}.head", 48, 64, 64, 16)
    state |= mlp("module.predictor", 16, 64, 16)
    optimizer = {"state": {0: {"exp_avg": torch.ones(48)}}, "param_groups": [{"lr": 0.1}]}
    scaler = {"scale": 65536.0, "_growth_tracker": 3}
    facts = {"epoch": 300, "arch": "vit_small", "optimizer": optimizer, "scaler": scaler}
    return {"state_dict": state, **facts}


@pytest.fixture
def encoder():
    return tiny(classes=0)


@pytest.fixture
def file(encoder, tmp_path):
    path = tmp_path / "vit-s-300ep.pth.tar"
    torch.save(pretraining(tensors(encoder, tmp_path)), path)
    return path


def test_the_encoder_of_a_pretraining(file, encoder):
    """Exactly it, and the reasons for everything else."""
    assert_same_weights(weights(keras_vit.from_pretrained(file, **HEADS)), weights(encoder))
    with Checkpoint(file, overrides=HEADS) as checkpoint:
        assert checkpoint.unused == ()
        dropped = dict(checkpoint.dropped)
    reasons = {
        "state_dict.module.base_encoder.head.": "MoCo v3's projection head",
        "state_dict.module.momentum_encoder.": "another ViT, under key='state_dict.module.mo",
        "state_dict.module.predictor.": "outside of 'state_dict.module.base_encoder'",
        "optimizer.": "outside of 'state_dict.module.base_encoder'",
    }
    for prefix, reason in reasons.items():
        found = [dropped.pop(name) for name in list(dropped) if name.startswith(prefix)]
        assert found, prefix
        assert all(reason in text for text in found), (prefix, found)
    assert not dropped


def test_its_momentum_encoder_by_key(file, encoder):
    model = keras_vit.from_pretrained(file, key=f"state_dict.{MOMENTUM}", **HEADS)
    twice = {path: 2 * array for path, array in weights(encoder).items()}
    assert_same_weights(weights(model), twice)


def test_the_file_of_its_linear_classifier(tmp_path):
    model = tiny(classes=7)
    state = {f"module.{name}": t for name, t in tensors(model, tmp_path).items()}
    facts = {"epoch": 90, "arch": "vit_small", "best_acc1": torch.tensor(73.2)}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(7, 48)}}}
    path = tmp_path / "linear-vit-s-300ep.pth.tar"
    torch.save({"state_dict": state, "optimizer": optimizer, **facts}, path)
    assert_same_weights(weights(keras_vit.from_pretrained(path, **HEADS)), weights(model))
    with Checkpoint(path, overrides=HEADS) as checkpoint:
        dropped = checkpoint.dropped
    assert set(dropped) == {"best_acc1", "optimizer.state.0.momentum_buffer"}


def classifier_of_layers(state):
    """A head of two layers, which is a classifier as the encoder has no batch norm."""
    for name in [name for name in state if ".head." in name]:
        del state[name]
    for i, sizes in ((0, (64, 48)), (2, (10, 64))):
        state[f"{BASE}.head.{i}.weight"] = torch.ones(*sizes)


def other_names(state):
    """The MLP of a method of other names."""
    for name in list(state):
        state[name.replace("_encoder", "_network")] = state.pop(name)
        if MOMENTUM in name:
            del state[name.replace("_encoder", "_network")]


def convolutional_stem(state):
    """Its ViTs with convolutions for a patch embedding (`vit_conv_small`)."""
    for name in [name for name in state if "patch_embed.proj" in name]:
        head, last = name.rsplit(".", 1)
        state[f"{head}.0.{last}"] = state.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            classifier_of_layers,
            "not in the model: state_dict.*head.0.weight.*head.2.weight",
        ),
        (other_names, "not in the model: state_dict.module.base_network.head.0.weight"),
        (convolutional_stem, "no tensor of it becomes 'patch_embedding/kernel'"),
    ],
)
def test_look_alikes_are_refused(change, message, encoder, tmp_path):
    content = pretraining(tensors(encoder, tmp_path))
    change(content["state_dict"])
    torch.save(content, tmp_path / "other.pth.tar")
    options = {} if change is convolutional_stem else HEADS
    with pytest.raises(ValueError, match=message):
        keras_vit.from_pretrained(tmp_path / "other.pth.tar", **options)


# Its ViT-S has 12 heads, DeiT's 6, and no tensor's shape tells them. Its positions do.


def positions(side, width):
    """The positions of its code: sines and cosines of the row, then of the column."""
    table = np.zeros((1, 1 + side * side, width), "float32")
    for row in range(side):
        for column in range(side):
            values = []
            for place in (row, column):
                for wave in (math.sin, math.cos):
                    for i in range(width // 4):
                        values.append(wave(place / 10_000 ** (i / (width // 4))))
            table[0, 1 + row * side + column] = values
    return table


def small(num_heads=12, **overrides):
    """A block of a ViT-S, for 2 × 2 patches."""
    size = {"hidden_dim": 384, "num_layers": 1, "mlp_dim": 384, "num_heads": num_heads}
    return tiny(**{**size, "image_size": 32, "patch_size": 16, "classes": 0, **overrides})


@pytest.fixture
def small_file(tmp_path):
    """Writes a file of MoCo v3's ViT-S; `change` maps its positions."""

    def write(change=lambda table: table, side=2):
        state = tensors(small(image_size=16 * side), tmp_path)
        state["pos_embed"] = torch.tensor(change(positions(side, 384)))
        torch.save({"state_dict": {f"{BASE}.{n}": t for n, t in state.items()}}, path)
        return path

    path = tmp_path / "small.pth.tar"
    return write


def heads(path, **options):
    return keras_vit.from_pretrained(path, **options).get_config()["num_heads"]


@pytest.mark.parametrize("side", [1, 2, 3])
def test_its_positions_tell_its_heads(side, small_file):
    assert heads(small_file(side=side)) == 12
    halves = small_file(lambda table: table.astype("float16"), side=side)
    assert heads(halves) == 12


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table + np.float32(0.01),
        lambda table: np.roll(table, 192, axis=-1),  # MAE's: the column first
        lambda table: np.sort(table),
    ],
)
def test_other_positions_are_of_a_model_of_6_heads(change, small_file):
    assert heads(small_file(change)) == 6


def test_what_is_said_comes_before_the_positions(small_file, tmp_path):
    path = small_file()
    assert heads(path, num_heads=6) == heads(path, plain_vit=True) == 6
    (tmp_path / "config.json").write_text('{"model_args": {"num_heads": 4}}')
    assert heads(path) == 4


def test_they_stay_the_heads_of_our_files(small_file, tmp_path):
    model = keras_vit.from_pretrained(small_file())
    for name in ("ours.safetensors", "ours.npz", "ours.keras"):
        if name.endswith(".keras"):
            model.save(tmp_path / name)
        else:
            layout = "timm" if name.endswith(".safetensors") else "google"
            keras_vit.save_weights(model, tmp_path / name, layout=layout)
        assert heads(tmp_path / name) == 12


def test_a_model_of_6_heads_does_not_take_it(small_file):
    model = small(num_heads=6)
    before = weights(model)
    with pytest.raises(ValueError, match=r"qkv/kernel.*\(384, 3, 12, 32\)"):
        keras_vit.load_weights(model, small_file())
    assert_same_weights(weights(model), before)
    keras_vit.load_weights(small(), small_file())
    keras_vit.load_weights(model, small_file(), plain_vit=True)


# The presets.


@pytest.mark.parametrize(("size", "millions"), [("S", 22), ("B", 86)])
def test_parameters_that_the_paper_states(size, millions):
    """Table 3 of arXiv 2104.02057."""
    row = PRESETS[f"ViT{size}16.mocov3"]
    assert round(row.parameters / 1e6) == millions
    classifier = PRESETS[f"ViT{size}16.mocov3_imagenet2012"]
    width = row.config()["hidden_dim"]
    assert classifier.parameters == row.parameters + 1000 * (width + 1)
    assert row.config()["num_heads"] == classifier.config()["num_heads"] == 12


def test_a_preset_loads_its_file(file, encoder, monkeypatch):
    size = {"hidden_dim": 48, "num_layers": 2, "num_heads": 3, "mlp_dim": 96}
    monkeypatch.setitem(SIZES, "Tiny", size)
    monkeypatch.setattr(pretrained, "fetch", lambda address: str(file))
    row = PRESETS["ViTS16.mocov3"]
    fields = {**row.fields, "num_heads": 4}
    row = dataclasses.replace(row, architecture="ViTTiny8", resolution=32, fields=fields)
    monkeypatch.setitem(PRESETS, row.name, row)
    model = keras_vit.from_pretrained(row.name)
    assert model.get_config()["num_heads"] == 4
    assert_same_weights(weights(model), weights(encoder))
