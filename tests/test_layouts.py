"""Every layout in: parity with what the original implementations compute."""

import json
import re
import shutil
import sys

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
from safetensors.numpy import load_file, save_file

import keras_vit
from keras_vit.conversion.verify import compare_stages
from keras_vit.resize import resize_grid

CASES = {
    "bigvision_token": {},
    "bigvision_scan": {},
    "bigvision_map_img_tower": {},
    "bigvision_sincos_gap": {"input_shape": (32, 32, 3)},
    "timm_token": {},
    "timm_nonsquare": {},
    "timm_gap": {},
    "timm_map_head": {},
    "timm_prenorm_clip": {},
    "timm_qk_norm": {},
    "timm_registers_layerscale": {},
    "timm_swiglu": {},  # whose blocks give the gate their own GELU
    "timm_betwixt_reg4_gap": {},
    "timm_dinov3": {},
    "timm_dinov3_plus": {},
    "timm_dinov3_qkvb": {},
    "timm_eva02_base": {},
    "timm_eva02_tiny": {},
    "timm_eva_giant": {},
    "timm_pe_core": {},
    "timm_pe_spatial": {},
    "timm_beit": {},
    "timm_naflex_gap": {},
    "hf_siglip2_naflex": {"input_shape": (32, 48, 3)},
    "timm_rope_axial": {},
    "timm_rope_mixed": {},
    "timm_rope_reg_gap": {},
    "meta_dinov3": {"num_heads": 4, "input_shape": (32, 48, 3)},
    "meta_dinov3_pth": {"num_heads": 4, "input_shape": (32, 32, 3)},
    "hf_dinov3": {},
    "hf_vit": {},
    "hf_ijepa": {},
    "hf_vit_msn": {},
    "hf_beit": {},
    "hf_aimv2": {},
    "hf_dinov2_swiglu": {},
    "hf_dinov2_registers": {},
    "kerashub_vit": {},
    "hybrid_r3stage": {},
    "hybrid_root_only": {},
    "timm_hybrid": {},
    "timm_hybrid_root_only": {},
    "bit_resnet": {"image_size": 64},
    "timm_bit": {},
}
UNNAMED = ("timm_bit", "timm_naflex_gap")  # a bare file of which says too little
EVA = re.compile("timm_(dinov3|eva|pe|rope|beit)")  # of timm's classes Eva and Beit


NON_SQUARE = {
    "timm_nonsquare": (32, 48, 3),
    "timm_betwixt_reg4_gap": (32, 48, 3),
    "timm_hybrid": (40, 56, 3),
    "timm_hybrid_root_only": (64, 48, 3),
}


def checkpoint_of(case):
    if case == "meta_dinov3_pth":
        pytest.importorskip("torch")
    files = ("checkpoint.npz", "model.safetensors", "model.pth")
    found = [
        REFERENCE / case / name for name in files if (REFERENCE / case / name).exists()
    ]
    return found[0] if found else REFERENCE / case  # a folder of KerasHub


def load(source, **overrides):
    return keras_vit.from_pretrained(source, classifier_activation=None, **overrides)


def assert_stages(model, case):
    expected = reference(case)
    if expected.get("patch_embedding", np.zeros(1)).ndim == 3:  # a row of patches
        shape = model.get_layer("patch_embedding").output.shape[1:]
        expected["patch_embedding"] = expected["patch_embedding"].reshape(-1, *shape)
    comparison = compare_stages(model, expected, 1e-5)
    assert {row.name for row in comparison.rows} == set(expected) - {"input"}
    assert comparison.ok, f"\n{comparison}"


@pytest.mark.parametrize("case", CASES)
def test_every_stage_of_the_original(case):
    assert_stages(load(checkpoint_of(case), **CASES[case]), case)


def test_the_encoder_of_a_masked_autoencoder():
    expected = reference("hf_vit_mae")
    model = load(checkpoint_of("hf_vit_mae"))
    features = model.features(expected["input"])
    tokens = np.concatenate(
        [array(features["class_token"])[:, None], array(features["patch_tokens"])], axis=1
    )
    assert_close(tokens, expected["features"])


@pytest.mark.one_backend
@pytest.mark.parametrize("case", CASES)
def test_loading_into_a_model_that_is_there(case):
    built = load(checkpoint_of(case), **CASES[case])
    model = type(built)(**built.get_config())
    report = keras_vit.load_weights(model, checkpoint_of(case), skip_mismatched_head=False)
    assert set(report.loaded) == set(weights(model))
    for path, value in weights(built).items():
        np.testing.assert_array_equal(weights(model)[path], value, err_msg=path)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "case",
    [
        name
        for name in CASES
        if name.startswith("timm") and name not in UNNAMED and not EVA.search(name)
    ],
)
def test_a_bare_file_of_timm(case, tmp_path):
    """Without a config, heads and a grid that is no square are what it cannot tell."""
    path = tmp_path / "model.safetensors"
    shutil.copy(checkpoint_of(case), path)
    with pytest.raises(ValueError, match=r"\d\d is not divisible .*`num_heads="):
        keras_vit.from_pretrained(path)
    shape = NON_SQUARE.get(case)
    told = {"num_heads": 4, "input_shape": shape, **CASES[case]}
    if case == "timm_prenorm_clip":  # OpenAI's and OpenCLIP's differ in it
        with pytest.raises(
            ValueError, match="Give `mlp=…`, `layer_norm_epsilon=…`, or put"
        ):
            load(path, **told)
        told |= {"mlp": "gelu", "layer_norm_epsilon": 1e-6}
    if case == "timm_swiglu":
        told["mlp"] = "geglu"
    assert_stages(load(path, **told), case)


@pytest.mark.one_backend
@pytest.mark.parametrize("case", [*filter(EVA.search, CASES)])
def test_eva_is_written_as_timm_writes_it(case, tmp_path):
    model = load(checkpoint_of(case))
    keras_vit.save_weights(model, tmp_path / "ours.safetensors", layout="timm")
    written, original = map(load_file, (tmp_path / "ours.safetensors", checkpoint_of(case)))
    assert set(written) == set(original)
    for name, tensor in original.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    again = load(tmp_path / "ours.safetensors")  # its metadata tells the rest
    assert again.get_config()["rope"] == model.get_config()["rope"]
    assert_stages(again, case)


@pytest.mark.one_backend
@pytest.mark.parametrize("meta", ["meta.safetensors", "meta.pth"])
@pytest.mark.parametrize("case", ["timm_dinov3_qkvb", "timm_dinov3", "timm_dinov3_plus"])
def test_dinov3_goes_through_every_layout_bit_by_bit(case, meta, tmp_path):
    first = load(checkpoint_of(case), classes=0, pooling="token")
    keras_vit.save_weights(first, tmp_path / "1.safetensors", layout="timm")
    way = [(meta, "meta"), ("folder", "huggingface"), ("2.safetensors", "timm")]
    model = load(tmp_path / "1.safetensors")
    for name, layout in way:
        keras_vit.save_weights(model, tmp_path / name, layout=layout)
        told = {"num_heads": 4, "image_size": first.get_config()["image_size"]}
        model = load(tmp_path / name, **told if name.endswith(".pth") else {})
        assert model.get_config()["rope"]["periods"] is None  # those that are computed
    before, after = (load_file(tmp_path / f"{n}.safetensors") for n in (1, 2))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)
    images = reference(case)["input"]
    np.testing.assert_array_equal(array(model(images)), array(first(images)))


@pytest.mark.one_backend
def test_stored_periods_go_back_to_meta_alone(tmp_path):
    """transformers and timm compute them, and those of Meta's files are rounded."""
    model = load(checkpoint_of("meta_dinov3_pth"), **CASES["meta_dinov3_pth"])
    keras_vit.save_weights(model, tmp_path / "meta.safetensors", layout="meta")
    written = load_file(tmp_path / "meta.safetensors")
    torch = pytest.importorskip("torch")
    state = torch.load(checkpoint_of("meta_dinov3_pth"), weights_only=True)
    assert set(written) == set(state)
    for name in set(state) - {"mask_token"}:
        tensor = state[name].numpy().copy()
        if name.endswith("attn.qkv.bias"):  # whose keys have none
            tensor[48:96] = 0
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    with pytest.raises(ValueError, match="transformers' DINOv3 cannot have rope="):
        keras_vit.save_weights(model, tmp_path / "folder", layout="huggingface")
    with pytest.raises(ValueError, match="it computes the periods"):
        keras_vit.save_weights(model, tmp_path / "timm.safetensors", layout="timm")
    assert [path.name for path in tmp_path.iterdir()] == ["meta.safetensors"]


@pytest.mark.one_backend
def test_a_pth_file_is_written_where_torch_is(tmp_path, monkeypatch):
    model = load(REFERENCE / "hf_dinov3")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"Writing '.*meta\.pth' needs `torch`"):
        keras_vit.save_weights(model, tmp_path / "meta.pth", layout="meta")
    assert not [*tmp_path.iterdir()]


@pytest.mark.one_backend
def test_eva_pools_every_token(tmp_path):
    model = tiny(rope="axial", pooling="map", class_token=True)
    with pytest.raises(ValueError, match="it pools every token"):
        keras_vit.save_weights(model, tmp_path / "timm.safetensors", layout="timm")
    assert not [*tmp_path.iterdir()]


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope": "axial"}, "rope="),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon="),
        ({"classes": 3}, "classes="),
        ({"pooling": "gap", "class_token": True}, "pooling="),
        ({"position": "learned"}, "position="),
        ({"pre_norm": True, "patch_bias": True}, "no place for pre_norm"),
    ],
)
def test_meta_refuses_what_dinov3_is_not(fields, message, tmp_path):
    fields = {"position": "none", "rope": "dinov3", "classes": 0, **fields}
    model = tiny(**{"layer_norm_epsilon": 1e-5, "gelu_approximate": False, **fields})
    with pytest.raises(ValueError, match=message):
        keras_vit.save_weights(model, tmp_path / "meta.safetensors", layout="meta")
    assert not [*tmp_path.iterdir()]


def test_naflex_of_each_shape_of_a_batch():
    expected = reference("hf_siglip2_naflex", "expected_two_shapes")
    any_shape = load(REFERENCE / "hf_siglip2_naflex", input_shape=(None, None, 3))
    for i, pooled in enumerate(expected["pooled"]):
        images = expected[f"image_{i}"]
        model = load(REFERENCE / "hf_siglip2_naflex", input_shape=images.shape[1:])
        assert_close(model(images), pooled[None])
        assert_close(any_shape(images), pooled[None])


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["base_patch16_siglip", "base_patch16_gap"])
def test_naflex_of_siglip_has_its_positions_and_gelu(name, tmp_path):
    folder = shutil.copytree(REFERENCE / "timm_naflex_gap", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] = f"naflexvit_{name}"
    (folder / "config.json").write_text(json.dumps(config))
    found = load(folder).get_config()
    is_siglip = "siglip" in name
    assert found["gelu_approximate"] == is_siglip
    assert found["position_interpolation"] == ("bilinear" if is_siglip else "bicubic")


@pytest.mark.one_backend
@pytest.mark.parametrize("case", ["timm_naflex_gap", "hf_siglip2_naflex"])
def test_naflex_without_a_config_is_refused(case, tmp_path):
    path = tmp_path / "model.safetensors"
    shutil.copy(checkpoint_of(case), path)
    with pytest.raises(ValueError, match="NaFlex.*plain_vit=True"):
        load(path, num_heads=4)


@pytest.mark.one_backend
def test_a_mask_of_biases_that_is_another_is_an_error(tmp_path):
    tensors = load_file(checkpoint_of("meta_dinov3"))
    tensors["blocks.1.attn.qkv.bias_mask"][:] = 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="mask of its biases"):
        load(tmp_path / "model.safetensors", **CASES["meta_dinov3"])


@pytest.mark.one_backend
def test_heads_of_the_papers_sizes_are_known(tmp_path):
    size = {"hidden_dim": 192, "num_layers": 12, "num_heads": 3, "mlp_dim": 768}
    tiny_16 = keras_vit.ViTTi16(weights=None, image_size=32, classes=2)
    keras_vit.save_weights(tiny_16, tmp_path / "ours.safetensors", layout="timm")
    without_metadata(tmp_path / "ours.safetensors")
    config = keras_vit.from_pretrained(tmp_path / "ours.safetensors").get_config()
    assert {key: config[key] for key in size} == size


def without_metadata(path):
    save_file(load_file(path), path)


def test_a_size_that_differs_resizes_as_the_family_does():
    model = load(checkpoint_of("timm_token"), image_size=48)
    native = weights(load(checkpoint_of("timm_token")))["position_embedding/grid"]
    expected = keras_vit.resize.resize_grid(native, (6, 6), "bicubic")
    np.testing.assert_allclose(
        weights(model)["position_embedding/grid"], expected, atol=1e-6
    )


@pytest.mark.one_backend
def test_registers_that_own_positions(tmp_path):
    """timm without `no_embed_class`: a position for each token of the prefix."""
    model = tiny(num_registers=4, num_prefix_positions=5, image_size=48)
    keras_vit.save_weights(model, tmp_path / "m.safetensors", layout="timm")
    without_metadata(tmp_path / "m.safetensors")
    again = keras_vit.from_pretrained(tmp_path / "m.safetensors", num_heads=4)
    assert again.get_config()["num_prefix_positions"] == 5
    for path, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[path], value, err_msg=path)


OLDER_NAMES = {
    "hf_vit": (
        ("vit.layers.", "vit.encoder.layer."),
        *((f".{p}_proj.", f".attention.{n}.") for p, n in zip("qkv", ("query", "key", "value"), strict=True)),
        (".o_proj.", ".output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ),
    "timm_swiglu": ((".mlp.fc1.", ".mlp.w12."), (".mlp.fc2.", ".mlp.w3.")),
    "timm_registers_layerscale": (
        ("reg_token", "register_tokens"),
        (".ls1.gamma", ".gamma_1"),
        (".ls2.gamma", ".gamma_2"),
        ("blocks.", "blocks.0."),
    ),
}  # fmt: skip


@pytest.mark.one_backend
@pytest.mark.parametrize("case", OLDER_NAMES)
def test_older_names(case, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint_of(case))
    for new, old in OLDER_NAMES[case]:
        assert any(new in name for name in tensors)
        tensors = {name.replace(new, old): value for name, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(REFERENCE / case / "config.json", tmp_path)
    expected = weights(load(checkpoint_of(case), **CASES[case]))
    for path, value in weights(load(tmp_path, **CASES[case])).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.one_backend
def test_dinov2_names_mean_swiglu(tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint_of("timm_swiglu"))
    tensors = {
        name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value
        for name, value in tensors.items()
    }
    save_file(tensors, tmp_path / "model.safetensors")
    bare = keras_vit.from_pretrained(tmp_path / "model.safetensors", num_heads=4)
    assert bare.get_config()["mlp"] == "swiglu"
    geglu = keras_vit.from_pretrained(
        tmp_path / "model.safetensors", num_heads=4, mlp="geglu"
    )
    assert geglu.get_config()["mlp"] == "geglu"


@pytest.mark.one_backend
@pytest.mark.parametrize("config", [None, {"architecture": "vit_huge_patch14_224"}])
def test_the_activation_of_a_gate_is_asked(config, tmp_path):
    """A name of timm's tells that of its own MLPs, which have no gate."""
    shutil.copy(checkpoint_of("timm_swiglu"), tmp_path)
    if config:
        arguments = {"model_args": {"embed_dim": 48, "num_heads": 4}}
        (tmp_path / "config.json").write_text(json.dumps(config | arguments))
    with pytest.raises(
        ValueError, match="does not tell its activation. Give `mlp='swiglu'`"
    ):
        keras_vit.from_pretrained(tmp_path, num_heads=4)
    model = keras_vit.from_pretrained(tmp_path, num_heads=4, mlp="swiglu")
    geglu = load(checkpoint_of("timm_swiglu"), mlp="geglu")
    assert_same_weights(weights(model), weights(geglu))


@pytest.mark.one_backend
def test_shards(tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(checkpoint_of("hf_vit"))
    places = {
        name: f"model-0000{1 + i % 2}-of-00002.safetensors"
        for i, name in enumerate(tensors)
    }
    for shard in set(places.values()):
        save_file(
            {n: t for n, t in tensors.items() if places[n] == shard}, tmp_path / shard
        )
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    shutil.copy(REFERENCE / "hf_vit" / "config.json", tmp_path)
    assert_stages(load(tmp_path), "hf_vit")
    assert_stages(load(index), "hf_vit")

    first = next(iter(tensors))
    index.write_text(json.dumps({"weight_map": {**places, first: "../evil.safetensors"}}))
    with pytest.raises(ValueError, match="leads out of the folder"):
        load(tmp_path)
    moved = "model-00001-of-00002.safetensors"
    moved = {
        **places,
        first: "model-00002-of-00002.safetensors" if places[first] == moved else moved,
    }
    index.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(ValueError, match="does not hold what it says"):
        load(tmp_path)
    index.write_text("{")
    with pytest.raises(ValueError, match="not a complete index"):
        load(tmp_path)


@pytest.mark.one_backend
@pytest.mark.parametrize("prefix", ["opt/target/", "params/", "params/img/", "img/"])
def test_roots_of_googles_files(prefix, tmp_path):
    tensors = reference("vit_token", "checkpoint")
    nested = {f"{prefix}{name}": value for name, value in tensors.items()}
    beside = {"opt/state/step": np.array(7)}
    if "img" in prefix:
        root = prefix.removesuffix("img/")
        beside |= {f"{root}txt/Embed_0/embedding": np.ones((3, 2), "float32")}
        beside |= {f"{root}t": np.ones((), "float32")}
    if not prefix.startswith(("opt", "params")):
        del beside["opt/state/step"]
    path = tmp_path / "nested.npz"
    np.savez(path, **nested, **beside)
    sources = [path, f"{path}:img"] if "img" in prefix else [path]
    expected = weights(keras_vit.from_pretrained(checkpoint_of("vit_token")))
    for source in sources:
        model = keras_vit.from_pretrained(source)
        report = keras_vit.load_weights(model, source)
        assert set(report.dropped) == set(beside)
        for name, value in weights(model).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    with pytest.raises(ValueError, match="has no ViT in the sub-tree 'txt'"):
        keras_vit.from_pretrained(f"{path}:txt")
    if prefix == "img/":  # whatever lies beside it is outside of the sub-tree
        return
    np.savez(path, **nested, **beside, **{"elsewhere/kernel": np.ones(3)})
    with pytest.raises(ValueError, match="elsewhere/kernel"):
        keras_vit.load_weights(model, path)


@pytest.mark.one_backend
def test_a_state_dict_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    tensors = load_file(checkpoint_of("timm_token"))
    expected = weights(load(checkpoint_of("timm_token")))
    contents = {
        "plain.pth": tensors,
        "nested.pt": {"model": tensors, "epoch": 3},
        "pytorch_model.bin": {f"module.{name}": t for name, t in tensors.items()},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
        model = load(tmp_path / name, num_heads=4)
        for path, value in weights(model).items():
            np.testing.assert_array_equal(value, expected[path], err_msg=path)
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    torch.save(halves, tmp_path / "half.pth")
    kernel = weights(load(tmp_path / "half.pth", num_heads=4))["head/kernel"]
    np.testing.assert_array_equal(kernel, halves["head.weight"].float().numpy().T)


@pytest.mark.one_backend
def test_a_config_that_contradicts_the_file(tmp_path):
    shutil.copy(checkpoint_of("hf_vit"), tmp_path)
    config = json.loads((REFERENCE / "hf_vit" / "config.json").read_text())
    for change, message in [
        ({"num_attention_heads": 5}, "cannot become block_0/attention/qkv/kernel"),
        (
            {"image_size": 64},
            "has 16 patches, .*image_size=64 from config.json",
        ),
        ({"hidden_act": "relu"}, "hidden_act='relu', which is not built here"),
        ({"num_attention_heads": "four"}, "num_heads='four'"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            keras_vit.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json' beside the checkpoint is damaged"):
        keras_vit.from_pretrained(tmp_path)


@pytest.mark.one_backend
def test_kerashub_gap_with_a_class_token_is_refused(tmp_path):
    shutil.copytree(REFERENCE / "kerashub_vit", tmp_path / "preset")
    task = json.loads((tmp_path / "preset" / "task.json").read_text())
    task["config"]["pooling"] = "gap"
    (tmp_path / "preset" / "task.json").write_text(json.dumps(task))
    with pytest.raises(ValueError, match="averages the class token and the patches"):
        keras_vit.from_pretrained(tmp_path / "preset")


def test_images_are_normalized_as_the_files_config_says(tmp_path):
    shutil.copytree(REFERENCE / "hf_vit", tmp_path / "vit")
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": std})
    )
    model = keras_vit.from_pretrained(tmp_path / "vit", include_preprocessing=True)
    bare = keras_vit.from_pretrained(tmp_path / "vit")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    assert_close(model(pixels), bare(((pixels / 255 - mean) / std).astype("float32")))
    first = keras_vit.from_pretrained(
        tmp_path / "vit", include_preprocessing=True, data_format="channels_first"
    )
    assert_close(first(np.transpose(pixels, (0, 3, 1, 2))), array(model(pixels)))


@pytest.mark.parametrize(
    "size", [pytest.param((96, 128), marks=pytest.mark.one_backend), (70, 50)]
)
def test_a_hybrid_at_another_size(size):
    """The feature map is a sixteenth of the image, rounded up."""
    source = checkpoint_of("hybrid_r3stage")
    model = load(source, input_shape=(*size, 3))
    rows, columns = (-(-pixels // 16) for pixels in size)
    grid = weights(load(source))["position_embedding/grid"]
    resized = weights(model)["position_embedding/grid"]
    assert_close(resized, resize_grid(grid, (rows, columns), "linear"))
    x = images(*size)
    assert_close(load(source, input_shape=(None, None, 3))(x), model(x))
