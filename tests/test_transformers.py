"""Parity with transformers' own models, whose files are read here."""

import json

import numpy as np
import pytest
import torch
import transformers
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    weights,
)

import keras_vit

SIZE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
DINO = {key: value for key, value in SIZE.items() if key != "intermediate_size"}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
TEXT = {
    key: value for key, value in SIZE.items() if key not in ("image_size", "patch_size")
} | {"vocab_size": 16, "max_position_embeddings": 8}

# Name → (class, config, what of its outputs is ours).
MODELS = {
    "vit": ("ViTModel", "ViTConfig", SIZE, "pooler_output"),
    "vit_classifier": (
        "ViTForImageClassification",
        "ViTConfig",
        {**SIZE, "qkv_bias": False, "hidden_act": "gelu_pytorch_tanh", "num_labels": 5},
        "logits",
    ),
    "deit": ("DeiTForImageClassification", "DeiTConfig", {**SIZE, "num_labels": 5}, "logits"),
    "deit_teacher": (
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        {**SIZE, "num_labels": 5},
        "logits",
    ),
    "msn": (
        "ViTMSNForImageClassification",
        "ViTMSNConfig",
        {**SIZE, "num_labels": 5},
        "logits",
    ),
    "ijepa": (
        "IJepaForImageClassification",
        "IJepaConfig",
        {**SIZE, "num_labels": 5},
        "logits",
    ),
    "aimv2": ("Aimv2VisionModel", "Aimv2VisionConfig", SIZE, "pooler_output"),
    "aimv2_biases": (
        "Aimv2VisionModel",
        "Aimv2VisionConfig",
        {**SIZE, "qkv_bias": True, "mlp_bias": True},
        "pooler_output",
    ),
    "beit": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SIZE, "num_labels": 5, "use_relative_position_bias": True},
        "logits",
    ),
    "beit_token": (
        "BeitModel",
        "BeitConfig",
        {**SIZE, "use_relative_position_bias": True, "use_mean_pooling": False},
        "pooler_output",
    ),
    "mae": ("ViTMAEForPreTraining", "ViTMAEConfig", {**SIZE, **DECODER}, None),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**DINO, "mlp_ratio": 2}, "pooler_output"),
    "dinov2_swiglu": (
        "Dinov2Model",
        "Dinov2Config",
        {**DINO, "mlp_ratio": 2, "use_swiglu_ffn": True},
        "pooler_output",
    ),
    "dinov2_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**DINO, "mlp_ratio": 2, "num_register_tokens": 3},
        "pooler_output",
    ),
    "dinov2_classifier": (
        "Dinov2ForImageClassification",
        "Dinov2Config",
        {**DINO, "mlp_ratio": 2, "num_labels": 5},
        "logits",
    ),
    "dinov2_registers_classifier": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**DINO, "mlp_ratio": 2, "num_register_tokens": 3, "num_labels": 5},
        "logits",
    ),
    "clip_tower": ("CLIPVisionModel", "CLIPVisionConfig", SIZE, "pooler_output"),
    "clip_projection": (
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**SIZE, "projection_dim": 20, "hidden_act": "gelu"},
        "image_embeds",
    ),
    "clip": ("CLIPModel", "CLIPConfig", {"vision_config": SIZE, "text_config": TEXT}, "clip"),
    "siglip_tower": ("SiglipVisionModel", "SiglipVisionConfig", SIZE, "pooler_output"),
    "siglip": (
        "SiglipModel",
        "SiglipConfig",
        {"vision_config": SIZE, "text_config": TEXT},
        "siglip",
    ),
    "siglip_classifier": (
        "SiglipForImageClassification",
        "SiglipConfig",
        {"vision_config": SIZE, "text_config": TEXT, "num_labels": 5},
        "logits",
    ),
    "chinese_clip": (
        "ChineseCLIPModel",
        "ChineseCLIPConfig",
        {"vision_config": SIZE, "text_config": TEXT},
        "clip",
    ),
    "metaclip": (
        "MetaClip2VisionModelWithProjection",
        "MetaClip2VisionConfig",
        {**SIZE, "projection_dim": 20},
        "image_embeds",
    ),
}  # fmt: skip


def published(name, folder, **changes):
    """A model of transformers with random weights, saved as it is published."""
    kind, config, fields, _ = MODELS[name]
    fields = dict(fields)
    if "vision_config" in fields:
        fields["vision_config"] = {**fields["vision_config"], **changes}
    else:
        fields |= changes
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def computed(model, name, batch):
    pixels = torch.tensor(np.transpose(batch, (0, 3, 1, 2)))
    output = MODELS[name][-1]
    with torch.no_grad():
        if output == "clip":
            return (
                model.vision_model(pixels).pooler_output @ model.visual_projection.weight.T
            )
        if output == "siglip":
            return model.vision_model(pixels).pooler_output
        if output is None:  # the encoder without the mask
            vit = model.vit
            x = vit.embeddings.patch_embeddings(pixels)
            x = x + vit.embeddings.position_embeddings[:, 1:]
            token = vit.embeddings.cls_token + vit.embeddings.position_embeddings[:, :1]
            x = torch.cat([token.expand(len(x), -1, -1), x], dim=1)
            for layer in vit.layers if hasattr(vit, "layers") else vit.encoder.layer:
                x = layer(x)
                x = x[0] if isinstance(x, tuple) else x
            return vit.layernorm(x)[:, 0]
        return model(pixels)[output]


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_computes(name, tmp_path):
    model = published(name, tmp_path)
    ours = keras_vit.from_pretrained(tmp_path, classifier_activation=None)
    batch = images()
    assert_close(array(ours(batch)), computed(model, name, batch).numpy())


@pytest.mark.one_backend
@pytest.mark.parametrize("name", MODELS)
def test_a_bare_file_needs_the_heads_alone(name, tmp_path):
    """Activation and qkv_bias, which a config may change, have their usual values."""
    if name in ("vit_classifier", "clip_projection", "msn"):
        pytest.skip(
            "its activation or epsilon is not the layout's, as only its config says"
        )
    model = published(name, tmp_path)
    (tmp_path / "config.json").unlink()
    told = {"num_heads": 4, "classifier_activation": None}
    if "clip" in name:  # OpenAI's and OpenCLIP's differ in it
        with pytest.raises(
            ValueError, match="'gelu' or 'quick_gelu'.*Give `mlp=…`, or put"
        ):
            keras_vit.from_pretrained(tmp_path / "model.safetensors", **told)
        told["mlp"] = "quick_gelu"
    ours = keras_vit.from_pretrained(tmp_path / "model.safetensors", **told)
    assert_close(array(ours(images())), computed(model, name, images()).numpy())


OTHER_DEFAULTS = ("dinov2_swiglu", "aimv2", "aimv2_biases")
OMITTED = ("num_attention_heads", "hidden_act", "layer_norm_eps")


@pytest.mark.one_backend
@pytest.mark.parametrize("name", [name for name in MODELS if name not in OTHER_DEFAULTS])
def test_what_a_config_omits_is_its_class_s_default(name, tmp_path):
    """Also in a nested `vision_config`: 12 heads, not as many as 64 goes into the width."""
    default = getattr(transformers, MODELS[name][1])()
    default = getattr(default, "vision_config", default)
    changes = {key: getattr(default, key) for key in OMITTED}
    assert changes["num_attention_heads"] == 12
    model = published(name, tmp_path, **changes)
    config = json.loads((tmp_path / "config.json").read_text())
    for part in (config, config.get("vision_config", {})):
        for key in OMITTED:
            part.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = keras_vit.from_pretrained(tmp_path, classifier_activation=None)
    assert_close(array(ours(images())), computed(model, name, images()).numpy())


@pytest.mark.parametrize("name", ["dinov2_classifier", "dinov2_registers_classifier"])
def test_the_classifier_of_dinov2_reads_class_token_and_mean(name, tmp_path):
    model = published(name, tmp_path / "theirs")
    ours = keras_vit.from_pretrained(tmp_path / "theirs", classifier_activation=None)
    assert ours.get_config()["pooling"] == "token_gap"
    # A new head, the features that it reads, and those of the class token.
    other = keras_vit.from_pretrained(tmp_path / "theirs", classes=3)
    before = weights(other)
    assert "head/kernel" in keras_vit.load_weights(other, tmp_path / "theirs").dropped
    assert_same_weights(weights(other), before)
    pixels = torch.tensor(np.transpose(images(), (0, 3, 1, 2)))
    base = model.base_model(pixels).last_hidden_state.detach().numpy()
    first = 1 + ours.get_config()["num_registers"]
    both = np.concatenate([base[:, 0], base[:, first:].mean(1)], axis=1)
    features = keras_vit.from_pretrained(tmp_path / "theirs", classes=0)
    assert_close(array(features(images())), both)
    token = {"classes": 0, "pooling": "token"}
    features = keras_vit.from_pretrained(tmp_path / "theirs", **token)
    assert_close(array(features(images())), base[:, 0])
    same = keras_vit.from_pretrained(features, classes=5)
    with pytest.raises(ValueError, match=r"head/kernel \(96, 5\), expected \(48, 5\)"):
        keras_vit.load_weights(same, tmp_path / "theirs")


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "name", ["deit_teacher", "dinov2_classifier", "dinov2_registers_classifier"]
)
def test_transformers_reads_the_classifiers_that_are_written(name, tmp_path):
    model = published(name, tmp_path / "theirs")
    ours = keras_vit.from_pretrained(tmp_path / "theirs", classifier_activation=None)
    keras_vit.save_weights(ours, tmp_path / "ours", layout="huggingface")
    again, information = type(model).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(information.values()), information
    logits = computed(again.eval(), name, images())
    assert_close(logits.numpy(), computed(model, name, images()).numpy())
    told = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert told["architectures"] == [type(model).__name__]
    mine = keras_vit.from_pretrained(tmp_path / "ours", classifier_activation=None)
    assert_same_weights(weights(mine), weights(ours))


OTHERS = {
    "Data2VecVisionForImageClassification": ("Data2VecVisionConfig", SIZE),
    "CLIPForImageClassification": (
        "CLIPConfig",
        {"vision_config": SIZE, "text_config": TEXT},
    ),
    "DPTModel": ("DPTConfig", {**SIZE, "backbone_out_indices": [0, 1, 1, 1]}),
    "MLCDVisionModel": ("MLCDVisionConfig", SIZE),
    "YolosModel": ("YolosConfig", {**SIZE, "image_size": [32, 32]}),
}


@pytest.mark.one_backend
@pytest.mark.parametrize("name", OTHERS)
def test_other_models_of_transformers_are_refused_by_name(name, tmp_path):
    config, fields = OTHERS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**fields))
    model.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    named = f"config.json has (model_type='{told['model_type']}'|architectures='{name}')"
    with pytest.raises(ValueError, match=f"{named}, which is not known to be computed"):
        keras_vit.from_pretrained(tmp_path)


@pytest.mark.one_backend
def test_sharded_by_transformers(tmp_path):
    model = transformers.ViTForImageClassification.from_pretrained(REFERENCE / "hf_vit")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = keras_vit.from_pretrained(tmp_path, classifier_activation=None)
    pixels = torch.tensor(np.transpose(images(), (0, 3, 1, 2)))
    assert_close(array(ours(images())), model.eval()(pixels).logits.detach().numpy())


def test_images_of_one_channel(tmp_path):
    config = transformers.Dinov2Config(**DINO, mlp_ratio=2, num_channels=1)
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    ours = keras_vit.from_pretrained(tmp_path)
    assert ours.input_shape == (None, 32, 32, 1)
    assert ours.get_config()["image_mean"] == 0.5  # the family's is of colours
