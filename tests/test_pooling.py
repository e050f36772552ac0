"""Poolings and final norms of the newer families, by reference cases and in NumPy."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    images,
    path_of,
    randomize,
    reference,
    tiny,
)
from safetensors.numpy import load_file, save_file

import keras_vit
from keras_vit.conversion.verify import compare_stages
from keras_vit.layers import AttentionPooling, QueryPooling

# The Perception Encoder, beside the sizes of the cases.
PERCEPTION = {
    **{"patch_size": 8, "hidden_dim": 48, "num_layers": 2, "num_heads": 4, "mlp_dim": 96},
    **{"pre_norm": True, "class_token": True, "layer_norm_epsilon": 1e-5},
    **{"gelu_approximate": False, "classifier_activation": None},
    "rope": {"kind": "cat", "indexing": "xy", "reference_grid": (4, 4), "offset": 1.0},
}
MODELS = {
    "timm_pe_core": {
        **{"image_size": (32, 48), "classes": 16},
        **{"pooling": "map", "pooling_num_heads": 8, "pooling_prefix": True},
    },
    "timm_pe_spatial": {"image_size": 32, "pooling": "gap", "final_norm": False},
}


def load(case, tmp_path, **others):
    """A model of a case, whose tensors have the names of a plain model in timm."""
    save_file(load_file(REFERENCE / case / "model.safetensors"), tmp_path / "a.safetensors")
    model = keras_vit.VisionTransformer(**PERCEPTION, **MODELS[case], **others)
    size = model.get_config()["image_size"]
    keras_vit.load_weights(
        model,
        tmp_path / "a.safetensors",
        plain_vit=True,
        position_grid=(size[0] // 8, size[1] // 8),
    )
    return model


@pytest.mark.parametrize("case", MODELS)
def test_every_stage_of_timm(case, tmp_path):
    expected = reference(case)
    model = load(case, tmp_path)
    grid = model.get_layer("patch_embedding").output.shape[1:]
    expected["patch_embedding"] = expected["patch_embedding"].reshape(-1, *grid)
    comparison = compare_stages(model, expected, 1e-5)
    assert {"block_1", "features", "pooled"} <= {row.name for row in comparison.rows}
    assert comparison.ok, f"\n{comparison}"
    assert_close(model(expected["input"]), expected.get("logits", expected["pooled"]))
    features = model.features(expected["input"])
    assert_close(features["pooled"], expected["pooled"])
    assert_close(features["patch_tokens"], expected["features"][:, 1:])


@pytest.mark.parametrize("case", MODELS)
def test_saved_models_and_copies_compute_the_same(case, tmp_path):
    model = load(case, tmp_path, rematerialize=True)
    batch = reference(case)["input"]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    own = {**again.get_config(), "name": model.name}
    assert own == model.get_config()
    for copy in (again, clone, keras_vit.from_pretrained(model)):
        assert_close(copy(batch), model(batch), 1e-7)


def test_half_precision_is_near_float32(tmp_path):
    expected = reference("timm_pe_core")
    model = load("timm_pe_core", tmp_path, dtype="mixed_bfloat16")
    assert_close(model(expected["input"]), expected["logits"], 0.05)


def test_the_probe_of_aimv2_is_its_query():
    tensors = load_file(REFERENCE / "hf_aimv2" / "model.safetensors")
    expected = reference("hf_aimv2")
    pooling = QueryPooling(4)
    pooling.build((None, 16, 48))
    pooling.probe.assign(tensors["head.cls_token"][0])
    kernels = [tensors[f"head.{part}_proj.weight"].T.reshape(48, 4, 12) for part in "kv"]
    pooling.key_value.kernel.assign(np.stack(kernels, 1))
    kernel = tensors["head.output_proj.weight"].T.reshape(4, 12, 48)
    pooling.projection.kernel.assign(kernel)
    pooling.projection.bias.assign(tensors["head.output_proj.bias"])
    assert_close(pooling(expected["features"]), expected["pooled"])


def query_pooling_by_hand(pooling, tokens, sizes):
    """One head after the other, each token as often as its size."""
    pooled = array(pooling.projection.bias).astype("float64")
    width = tokens.shape[-1] // pooling.num_heads
    tokens = tokens.repeat(sizes, axis=0)
    for head in range(pooling.num_heads):
        query = array(pooling.probe)[0, head * width : (head + 1) * width]
        key, value = (
            tokens @ array(pooling.key_value.kernel)[:, part, head]
            + array(pooling.key_value.bias)[part, head]
            for part in (0, 1)
        )
        shares = np.exp(key @ query / np.sqrt(width))
        pooled += (shares / shares.sum()) @ value @ array(pooling.projection.kernel)[head]
    return pooled


def test_query_pooling_counts_a_token_as_often_as_its_size():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, 7, 24)).astype("float32")
    sizes = np.array([[1, 1, 2, 1, 3, 1, 1], [1, 1, 1, 4, 1, 2, 1]], "int32")
    pooling = QueryPooling(4, num_prefix=2, use_bias=True)
    pooling.build(tokens.shape)
    randomize(pooling)
    expected = [
        query_pooling_by_hand(pooling, image[2:], size[2:])
        for image, size in zip(tokens, sizes, strict=True)
    ]
    assert_close(pooling(tokens, sizes=sizes), np.array(expected))


@pytest.mark.parametrize("prefix", [False, True])
def test_poolings_of_a_model_with_and_without_its_prefix(prefix):
    fields = {"class_token": True, "num_registers": 2, "classes": 0, "image_size": (32, 48)}
    fields |= {"pooling_prefix": prefix}
    mean = tiny(pooling="gap", **fields)
    every = tiny(pooling=None, **{**fields, "pooling_prefix": False})
    every.set_weights(mean.get_weights())
    tokens = array(every(images(32, 48)))
    assert_close(mean(images(32, 48)), tokens[:, 0 if prefix else 3 :].mean(1))
    attention = tiny(pooling="map", pooling_num_heads=8, pooling_mlp_dim=40, **fields)
    pooling = attention.get_layer("pooling")
    tokens = attention.features(images(32, 48))
    tokens = [tokens["class_token"][:, None], tokens["registers"], tokens["patch_tokens"]]
    alone = AttentionPooling(8, mlp_dim=40)
    alone.build((None, None, 48))
    alone.set_weights(pooling.get_weights())
    context = keras.ops.concatenate(tokens if prefix else tokens[2:], axis=1)
    assert_close(attention(images(32, 48)), alone(context))


@pytest.mark.parametrize("registers", [0, 2])
def test_a_head_reads_the_class_token_and_the_mean_of_the_patches(registers):
    model = tiny(pooling="token_gap", num_registers=registers, classifier_activation=None)
    every = tiny(pooling=None, num_registers=registers, classes=0)
    every.set_weights(model.get_weights()[: len(every.weights)])
    tokens = array(every(images()))
    pooled = np.concatenate([tokens[:, 0], tokens[:, 1 + registers :].mean(1)], axis=1)
    head = model.get_layer("head")
    assert_close(model(images()), pooled @ array(head.kernel) + array(head.bias))
    assert_close(model.features(images())["pooled"], pooled)


@pytest.mark.parametrize(
    "fields",
    [
        {"pooling": "map", "pooling_num_heads": 8, "pooling_mlp_dim": 40},
        {"pooling": "query", "pooling_prefix": True, "num_registers": 1},
        {"pooling": "token_gap", "final_norm": False},
        {"distilled": True, "drop_path_rate": 0.1},
    ],
)
def test_every_weight_is_trained(fields):
    model = tiny(**fields, rematerialize=True)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [array(weight).copy() for weight in model.trainable_weights]
    model.train_on_batch(images(batch=4), np.array([0, 1, 2, 0]))
    frozen = [
        path_of(weight)
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if (array(weight) == old).all()
    ]
    assert not frozen


@pytest.mark.one_backend
@pytest.mark.parametrize("layout", ["google", "timm", "huggingface"])
@pytest.mark.parametrize(
    "fields",
    [
        {"pooling": "token_gap"},
        {"pooling": "query"},
        {"pooling": "map", "pooling_prefix": True, "class_token": True},
        {"final_norm": False},
    ],
)
def test_layouts_that_cannot_say_it_refuse_the_model(layout, fields, tmp_path):
    model = tiny(**fields, classes=0)
    path = tmp_path / {"google": "a.npz", "timm": "a.safetensors"}.get(layout, "a")
    if layout == "timm" and fields.get("pooling") not in ("token_gap", "query"):
        keras_vit.save_weights(model, path, layout=layout)
        again = keras_vit.from_pretrained(path)
        assert_close(again(images()), model(images()), 1e-6)
        return
    name = next(name for name in ("pooling_prefix", *fields) if name in fields)
    refused = f"no place here for {name}=|cannot have classes=0|pool by 'token'"
    with pytest.raises(ValueError, match=refused):
        keras_vit.save_weights(model, path, layout=layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
def test_files_of_timm_keep_the_number_of_heads_of_the_pooling(tmp_path):
    model = tiny(pooling="map", pooling_num_heads=8, pooling_mlp_dim=40, classes=0)
    keras_vit.save_weights(model, tmp_path / "a.safetensors", layout="timm")
    again = keras_vit.from_pretrained(tmp_path / "a.safetensors")
    assert again.get_config()["pooling_num_heads"] == 8
    assert again.get_config()["pooling_mlp_dim"] == 40
    assert_close(again(images()), model(images()), 1e-6)
    keras_vit.save_weights(model, tmp_path / "a.npz", layout="google")
    again = keras_vit.from_pretrained(tmp_path / "a.npz")
    assert_close(again(images()), model(images()), 1e-6)
    with pytest.raises(ValueError, match="cannot have pooling_num_heads=8"):
        keras_vit.save_weights(model, tmp_path / "folder", layout="huggingface")


@pytest.mark.one_backend
def test_a_copy_with_another_pooling_leaves_out_the_arguments_of_the_old_one():
    model = tiny(pooling="gap", pooling_prefix=True, class_token=True, classes=0)
    copy = keras_vit.from_pretrained(model, pooling="token")
    assert copy.get_config()["pooling_prefix"] is False


@pytest.mark.one_backend
@pytest.mark.parametrize("pooling", ["map", "gap"])
def test_timms_argument_for_pooling_of_the_prefix(pooling, tmp_path):
    fields = {"class_token": True, "classes": 0, "gelu_approximate": False}
    model = tiny(pooling=pooling, pooling_prefix=True, **fields)
    keras_vit.save_weights(model, tmp_path / "ours.safetensors", layout="timm")
    tensors = load_file(tmp_path / "ours.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")  # without our metadata
    pool = {"map": "map", "gap": "avg"}[pooling]
    told = {"global_pool": pool, "embed_dim": 48, "num_heads": 4}
    told = {**told, "pool_include_prefix": True}
    (tmp_path / "config.json").write_text(json.dumps({"model_args": told}))
    again = keras_vit.from_pretrained(tmp_path / "model.safetensors")
    assert again.get_config()["pooling_prefix"]
    assert_close(again(images()), model(images()), 1e-6)
