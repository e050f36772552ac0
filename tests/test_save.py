"""Checkpoints out: every layout and back, to the last bit, and into transformers."""

import json

import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    reference,
    tiny,
    weights,
)

import keras_vit

TOKEN = REFERENCE / "vit_token" / "checkpoint.npz"
SIZE = {"image_size", "patch_size", "hidden_dim", "num_layers", "num_heads", "mlp_dim"}


def path_for(folder, layout):
    endings = {"google": ".npz", "huggingface": ""}
    return folder / f"{layout}{endings.get(layout, '.safetensors')}"


def out_and_in(model, layout, folder, **overrides):
    path = path_for(folder, layout)
    keras_vit.save_weights(model, path, layout=layout)
    return keras_vit.from_pretrained(path, **overrides)


@pytest.mark.parametrize("case", ["vit_token", "vit_token_linen_names"])
def test_through_every_layout_and_back_to_google(case, tmp_path):
    source = REFERENCE / case / "checkpoint.npz"
    model = keras_vit.from_pretrained(source)
    first = model
    for layout in ("timm", "huggingface", "google"):
        model = out_and_in(model, layout, tmp_path)
        assert_same_weights(weights(model), weights(first))
        assert model.get_config() | {"name": ""} == first.get_config() | {"name": ""}
    if case == "vit_token":  # the names that are written are the published ones
        original = reference(case, "checkpoint")
        written = dict(np.load(tmp_path / "google.npz"))
        assert set(written) == set(original)
        for name, tensor in original.items():
            np.testing.assert_array_equal(written[name], tensor, err_msg=name)
            assert written[name].dtype == tensor.dtype


@pytest.mark.one_backend
@pytest.mark.parametrize("case", ["hybrid_r3stage", "hybrid_root_only"])
def test_a_hybrid_through_timm_and_back_to_google(case, tmp_path):
    model = keras_vit.from_pretrained(REFERENCE / case / "checkpoint.npz")
    again = out_and_in(out_and_in(model, "timm", tmp_path), "google", tmp_path)
    assert again.get_config() | {"name": ""} == model.get_config() | {"name": ""}
    original = reference(case, "checkpoint")
    written = dict(np.load(tmp_path / "google.npz"))
    assert set(written) == set(original)
    for name, tensor in original.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    with pytest.raises(ValueError, match="has no place for stem_root/conv/kernel"):
        keras_vit.save_weights(model, tmp_path / "folder", layout="huggingface")
    assert not (tmp_path / "folder").exists()


MODELS = {
    "google": [
        {},
        {"representation_size": 48},
        {"pooling": "gap"},
        {"pooling": "map"},
        {"num_prefix_positions": 0},
        {"classes": 0},
        {"image_size": (32, 48)},
        {"stem": {"num_units": (1, 2), "width_factor": 0.5}, "patch_size": 1},
        {"stem": {"num_units": (), "width_factor": 0.5}, "patch_size": 2},
    ],
    "timm": [
        {"pooling": "gap", "fc_norm": True},
        {"stem": {"num_units": (1, 2), "width_factor": 0.5}, "patch_size": 1},
        {"stem": {"num_units": (), "width_factor": 0.5}, "patch_size": 2},
        {"pooling": "map", "gelu_approximate": False},
        {"num_registers": 4, "num_prefix_positions": 0, "layer_scale": 1e-5},
        {"num_registers": 4, "num_prefix_positions": 5},
        {"pre_norm": True, "mlp": "quick_gelu", "layer_norm_epsilon": 1e-5},
        {"mlp": "swiglu", "qk_norm": True, "qkv_bias": False},
        {"mlp": "geglu", "image_size": (32, 48)},
        {"representation_size": 48, "image_mean": (0.1, 0.2, 0.3)},
        {"pooling": "gap", "class_token": True, "position_interpolation": "bicubic"},
    ],
    "timm_naflex": [
        {"num_prefix_positions": 0, "num_registers": 4, "image_size": (32, 48)},
        {"pooling": "gap", "fc_norm": True, "num_registers": 4, "layer_scale": 1e-5},
        {"pooling": "map", "position_interpolation": "bilinear", "qkv_bias": False},
        {"pooling": "gap", "position": "none", "qk_norm": True, "mlp": "quick_gelu"},
        {"pooling": "gap", "pre_norm": True, "layer_norm_epsilon": 1e-5},
    ],
    "huggingface": [
        {},
        {"classes": 0, "representation_size": 48},
        {"classes": 0},
        {"image_size": (32, 48), "patch_size": (8, 16), "gelu_approximate": False},
        {"classes": 0, "layer_scale": 1e-5},
        {"classes": 0, "layer_scale": 1e-5, "num_registers": 4},
        {"classes": 0, "layer_scale": 1e-5, "mlp": "swiglu", "mlp_dim": 64},
        {"classes": 0, "pooling": "map"},
        {"classes": 0, "pre_norm": True, "mlp": "quick_gelu"},
        {"qkv_bias": False, "layer_norm_epsilon": 1e-12},
    ],
}


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("layout", "fields"), [(name, f) for name, many in MODELS.items() for f in many]
)
def test_models_of_every_kind_come_back(layout, fields, tmp_path):
    model = tiny(**fields)
    shape = (
        {"position_grid": (4, 6)} if layout == "google" and "image_size" in fields else {}
    )
    again = out_and_in(model, layout, tmp_path, **shape)
    assert_same_weights(weights(again), weights(model))
    told = SIZE | {"classes", "pooling", "mlp", "gelu_approximate", "layer_norm_epsilon"}
    told |= {"stem", "position_interpolation", "image_mean", "image_std", "num_registers"}
    config, expected = again.get_config(), model.get_config()
    assert {key: config[key] for key in told} == {key: expected[key] for key in told}


def in_transformers(folder):
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    model, loading = kind.from_pretrained(folder, output_loading_info=True)
    missing = {name for name in loading["missing_keys"] if not name.startswith("pooler.")}
    assert not missing | loading["unexpected_keys"] | loading["mismatched_keys"]

    def compute(batch):
        with torch.no_grad():
            outputs = model.eval()(torch.tensor(np.transpose(batch, (0, 3, 1, 2))))
        for name in ("logits", "image_embeds", "pooler_output"):
            # transformers makes up a pooler where a ViT has none.
            if outputs.get(name) is not None and not loading["missing_keys"]:
                return outputs[name].numpy()
        return outputs.last_hidden_state[:, 0].numpy()

    return compute


@pytest.mark.one_backend
@pytest.mark.parametrize("fields", MODELS["huggingface"])
def test_transformers_computes_the_same(fields, tmp_path):
    model = tiny(classifier_activation=None, **fields)
    keras_vit.save_weights(model, tmp_path / "model", layout="huggingface")
    size = fields.get("image_size", (32, 32))
    batch = images(*size)
    assert_close(array(model(batch)), in_transformers(tmp_path / "model")(batch))


@pytest.mark.one_backend
def test_transformers_prepares_the_same_images(tmp_path):
    import transformers

    model = tiny(image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.25))
    keras_vit.save_weights(model, tmp_path / "model", layout="huggingface")
    processor = transformers.ViTImageProcessor.from_pretrained(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("uint8")
    prepared = processor(pixels, return_tensors="np")["pixel_values"]
    expected = (pixels / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.25]
    assert_close(prepared, np.transpose(expected, (2, 0, 1))[None], 1e-5)


@pytest.mark.one_backend
def test_a_projection_of_clip_goes_out_without_its_bias(tmp_path):
    model = tiny(pre_norm=True, mlp="quick_gelu", classifier_activation=None)
    path = tmp_path / "model"
    with pytest.raises(ValueError, match="no bias for the head"):
        keras_vit.save_weights(model, path, layout="huggingface")
    assert not path.exists()
    model.get_layer("head").bias.assign(np.zeros(10))
    keras_vit.save_weights(model, path, layout="huggingface")
    assert_close(array(model(images())), in_transformers(path)(images()))


def test_positions_move_into_tokens_where_a_layout_has_no_row_for_them(tmp_path):
    """Equal in effect: a token's position is a constant added to it."""
    dinov2 = tiny(classes=0, num_registers=4, layer_scale=1e-5)
    again = out_and_in(dinov2, "timm", tmp_path)
    assert again.get_config()["num_prefix_positions"] == 0
    assert_close(again(images()), dinov2(images()))
    bare = tiny(num_prefix_positions=0)
    again = out_and_in(bare, "huggingface", tmp_path)
    assert again.get_config()["num_prefix_positions"] == 1
    assert_close(again(images()), bare(images()))
    fixed = tiny(position="sincos2d", pooling="gap")
    again = out_and_in(fixed, "timm", tmp_path)
    assert again.get_config()["position"] == "learned"
    assert_close(again(images()), fixed(images()))
    nowhere = tiny(position="none")
    again = out_and_in(nowhere, "huggingface", tmp_path)
    assert_close(again(images()), nowhere(images()))


def test_a_fine_tuned_model_goes_out(tmp_path):
    model = keras_vit.from_pretrained(TOKEN, classes=3, image_size=48)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images(48, 48), np.array([0, 2]), verbose=0)
    for layout in ("google", "timm", "huggingface"):
        again = out_and_in(model, layout, tmp_path)
        assert_same_weights(weights(again), weights(model))
        assert_close(again(images(48, 48)), model(images(48, 48)))


def test_half_precision_weights_go_out(tmp_path):
    model = tiny(dtype="bfloat16")
    for layout in ("timm", "google", "huggingface"):
        again = out_and_in(model, layout, tmp_path, dtype="bfloat16")
        assert_same_weights(weights(again), weights(model))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("layout", "fields", "message"),
    [
        ("google", {"num_registers": 4}, "'google' has no place for registers/tokens"),
        ("google", {"layer_scale": 1.0}, "has no place for block_0/attention_scale/scale"),
        ("google", {"pooling": "gap", "fc_norm": True}, "no place for fc_norm/beta"),
        ("huggingface", {"pooling": "gap"}, "pool by 'token'. Received.*'gap'"),
        ("huggingface", {"qk_norm": True}, "no place for block_0/attention/key_norm"),
        ("huggingface", {"representation_size": 48}, "cannot have representation_size=48"),
        ("huggingface", {"mlp": "swiglu"}, "cannot have mlp='swiglu'"),
        ("huggingface", {"layer_scale": 1.0}, "cannot have classes=10"),
        ("timm_naflex", {"mlp": "swiglu"}, "NaFlexVit cannot have mlp='swiglu'"),
        ("timm_naflex", {"representation_size": 48}, "cannot have representation_size=48"),
        ("timm_naflex", {"position": "relative"}, "cannot have position='relative'"),
        ("timm_naflex", {"qkv_bias": "qv"}, "cannot have qkv_bias='qv'"),
        ("timm_naflex", {"mlp_sub_norm": True}, "cannot have mlp_sub_norm=True"),
        ("timm_naflex", {"rope": "axial"}, "no place here for rope=.*layout='timm'"),
        ("timm_naflex", {"distilled": True}, "no place here for distilled=True"),
        ("timm_naflex", {"norm": "rms"}, "no place here for norm='rms'"),
        ("timm_naflex", {"patch_size": (8, 16)}, "patches in a row are squares of 3"),
        ("timm_naflex", {"input_shape": (32, 32, 1)}, "are squares of 3 channels"),
        ("keras", {}, "must be one of 'google', 'timm', 'huggingface'"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused_and_nothing_written(
    layout, fields, message, tmp_path
):
    path = tmp_path / {"google": "m.npz", "huggingface": "m"}.get(layout, "m.safetensors")
    with pytest.raises(ValueError, match=message):
        keras_vit.save_weights(tiny(**fields), path, layout=layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("layout", "name"),
    [("google", "m.safetensors"), ("timm", "m.npz"), ("huggingface", "m.safetensors")],
)
def test_endings(layout, name, tmp_path):
    with pytest.raises(ValueError, match="ends in|is a folder"):
        keras_vit.save_weights(tiny(), tmp_path / name, layout=layout)


@pytest.mark.one_backend
def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    keras_vit.save_weights(tiny(), path, layout="google")
    before = path.read_bytes()

    def full(file, **tensors):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        keras_vit.save_weights(tiny(), path, layout="google")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


@pytest.mark.one_backend
def test_google_does_not_record_the_exact_gelu_and_says_so(tmp_path, caplog):
    keras_vit.save_weights(
        tiny(gelu_approximate=False), tmp_path / "m.npz", layout="google"
    )
    assert "does not record gelu_approximate=False" in caplog.text
