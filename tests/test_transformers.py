"""Parity with transformers' own models, whose files are read here."""

import numpy as np
import pytest
import torch
import transformers
from helpers import REFERENCE, array, assert_close, images

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
}  # fmt: skip


def published(name, folder):
    """A model of transformers with random weights, saved as it is published."""
    kind, config, fields, _ = MODELS[name]
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
    """What a config may change, activation and qkv_bias, is in the usual state here."""
    if name in ("vit_classifier", "clip_projection"):
        pytest.skip(
            "its activation is not the family's usual one, which only its config says"
        )
    model = published(name, tmp_path)
    (tmp_path / "config.json").unlink()
    ours = keras_vit.from_pretrained(
        tmp_path / "model.safetensors", num_heads=4, classifier_activation=None
    )
    assert_close(array(ours(images())), computed(model, name, images()).numpy())


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
