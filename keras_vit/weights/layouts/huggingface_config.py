"""The JSON files beside `model.safetensors` in a folder of transformers."""

from typing import Any

import keras

from keras_vit.layers.mlp import GATED
from keras_vit.models.sizes import grid_size
from keras_vit.weights.layouts.aimv2 import AIMV2, aimv2_config
from keras_vit.weights.layouts.dinov3 import HF_DINOV3, dinov3_config
from keras_vit.weights.layouts.huggingface import (
    BEIT,
    CLIP,
    DEIT,
    DINOV2,
    DINOV2_CLASSIFIER,
    SIGLIP,
    SIGLIP2,
    VIT,
)
from keras_vit.weights.layouts.layout import Layout
from keras_vit.weights.layouts.mae import HF_MAE, check_mae, mae_config
from keras_vit.weights.notes import hugging_face_images, hugging_face_labels

CLASSIFIERS = (DEIT, DINOV2_CLASSIFIER)  # layouts of models that always have a head
_DINOV2S = (DINOV2, DINOV2_CLASSIFIER)
_SIGLIPS = (SIGLIP, SIGLIP2)


def model_config(
    config: dict[str, Any], layout: Layout, model: keras.Model
) -> dict[str, Any]:
    """Content of `config.json`, from which transformers builds the same model.

    Raises:
        ValueError: if transformers' model of this kind lacks a feature of the model.
    """
    if layout is HF_MAE:
        check_mae(config)
    else:
        _check(config, layout)
    model_type, architecture = _model_type(config, layout)
    common = {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": config["hidden_dim"],
        "num_hidden_layers": config["num_layers"],
        "num_attention_heads": config["num_heads"],
        "hidden_act": _activation(config),
        "layer_norm_eps": config["layer_norm_epsilon"],
        "image_size": _one_or_two(config["image_size"]),
        "patch_size": _one_or_two(config["patch_size"]),
        "num_channels": _channels(config, model),
    }
    if layout in (VIT, DEIT, BEIT, *_DINOV2S):
        common |= {
            "hidden_dropout_prob": config["dropout_rate"],
            "attention_probs_dropout_prob": config["attention_dropout_rate"],
        }
    if layout in (VIT, DEIT, *_DINOV2S):
        common["qkv_bias"] = config["qkv_bias"]
    if layout is BEIT:
        common |= _beit(config)
    if layout in _DINOV2S:
        common |= _dinov2(config)
    elif layout is HF_DINOV3:
        common |= dinov3_config(config)
    elif layout is AIMV2:
        common |= aimv2_config(config)
    elif layout is HF_MAE:
        common |= mae_config(config, model.get_config())
    else:
        common["intermediate_size"] = config["mlp_dim"]
    if layout in (VIT, BEIT, *CLASSIFIERS):
        common |= hugging_face_labels(config)
    if layout is VIT:
        common["pooler_output_size"] = config["representation_size"] or config["hidden_dim"]
    if layout is SIGLIP2:  # of images of any size
        common["num_patches"] = _num_patches(config)
        del common["image_size"]
    if layout is CLIP and config["classes"]:
        common["projection_dim"] = config["classes"]
    return common


def processor_config(
    config: dict[str, Any], layout: Layout, model: keras.Model
) -> dict[str, Any]:
    """Content of `preprocessor_config.json`, the preparation of images."""
    kinds = {SIGLIP.name: "SiglipImageProcessor", HF_DINOV3.name: "DINOv3ViTImageProcessor"}
    kind = kinds.get(layout.name, "ViTImageProcessor")
    resample = 2 if layout is VIT else 3  # bilinear, bicubic
    channels = _channels(config, model)
    if layout is SIGLIP2:
        sizes = {
            "image_processor_type": "Siglip2ImageProcessor",
            "patch_size": config["patch_size"][0],
            "max_num_patches": _num_patches(config),
        }
    else:
        sizes = hugging_face_images(config, kind, resample)
    return {
        "do_resize": True,
        **sizes,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _channel_values(config["image_mean"], channels),
        "image_std": _channel_values(config["image_std"], channels),
    }


def _check(config, layout):
    """Refuses a config that transformers' models of a kind cannot have."""
    demands = {
        "classes": layout in (VIT, CLIP, BEIT)
        or bool(config["classes"]) == (layout in CLASSIFIERS),
        "representation_size": not config["representation_size"]
        or (layout is VIT and not config["classes"]),
        "class_token": config["class_token"] == (layout not in (*_SIGLIPS, AIMV2)),
        "mlp": config["mlp"] not in GATED
        or (layout in _DINOV2S and config["mlp"] == "swiglu")
        or layout in (HF_DINOV3, AIMV2),
        "qkv_bias": config["qkv_bias"] == ("qv" if layout is BEIT else True)
        or (layout in (VIT, DEIT, *_DINOV2S) and config["qkv_bias"] is False)
        or layout in (HF_DINOV3, AIMV2),
        "mlp_bias": config["mlp_bias"] or layout is AIMV2,
        "projection_bias": config["projection_bias"] or layout is AIMV2,
        "patch_bias": config["patch_bias"] is not False or layout is CLIP,
        "image_size": layout is not BEIT or _is_square(config),
        "pooling_num_heads": config["pooling_num_heads"] in (None, config["num_heads"]),
        "pooling_mlp_dim": config["pooling_mlp_dim"] in (None, config["mlp_dim"]),
        "mlp_dim": layout not in _DINOV2S or _mlp_dim(config) == config["mlp_dim"],
    }
    for name, holds in demands.items():
        if not holds:
            raise ValueError(
                f"transformers' models in the layout {layout.name!r} cannot have "
                f"{name}={config[name]!r}. Save with layout='timm', or build the model "
                "otherwise (`keras_vit.from_pretrained(model, …)`)."
            )


def _model_type(config, layout):
    if layout is CLIP:
        with_head = "WithProjection" if config["classes"] else ""
        return "clip_vision_model", f"CLIPVisionModel{with_head}"
    if layout is DEIT:
        return "deit", "DeiTForImageClassificationWithTeacher"
    if layout is SIGLIP:
        return "siglip_vision_model", "SiglipVisionModel"
    if layout is SIGLIP2:
        return "siglip2_vision_model", "Siglip2VisionModel"
    if layout is HF_DINOV3:
        return "dinov3_vit", "DINOv3ViTModel"
    if layout is AIMV2:
        return "aimv2_vision_model", "Aimv2VisionModel"
    if layout is HF_MAE:
        return "vit_mae", "ViTMAEForPreTraining"
    if layout is BEIT:
        return "beit", "BeitForImageClassification" if config["classes"] else "BeitModel"
    if layout in _DINOV2S:
        kind = "ForImageClassification" if layout is DINOV2_CLASSIFIER else "Model"
        if config["num_registers"]:
            return "dinov2_with_registers", f"Dinov2WithRegisters{kind}"
        return "dinov2", f"Dinov2{kind}"
    return "vit", "ViTForImageClassification" if config["classes"] else "ViTModel"


def _activation(config):
    if config["mlp"] == "quick_gelu":
        return "quick_gelu"
    return "gelu_pytorch_tanh" if config["gelu_approximate"] else "gelu"


def _beit(config):
    scale = config["layer_scale"]
    return {
        "use_mean_pooling": config["fc_norm"],
        "use_relative_position_bias": True,
        # transformers has scales where this is not 0.
        "layer_scale_init_value": 0.0 if scale is None else scale or 0.1,
        "drop_path_rate": config["drop_path_rate"],
    }


def _dinov2(config):
    swiglu = config["mlp"] == "swiglu"
    fields = {
        "use_swiglu_ffn": swiglu,
        "mlp_ratio": _mlp_ratio(config),
        "layerscale_value": 1.0 if config["layer_scale"] is None else config["layer_scale"],
    }
    if config["num_registers"]:
        fields["num_register_tokens"] = config["num_registers"]
    return fields


def _mlp_ratio(config):
    """The ratio in the config; transformers takes two thirds of it for a gated MLP."""
    gate = 1.5 if config["mlp"] == "swiglu" else 1
    return max(1, round(gate * config["mlp_dim"] / config["hidden_dim"]))


def _mlp_dim(config):
    """The width that transformers' DINOv2 computes from the ratio."""
    width = config["hidden_dim"] * _mlp_ratio(config)
    if config["mlp"] != "swiglu":
        return width
    return (int(width * 2 / 3) + 7) // 8 * 8


def _is_square(config):
    return all(a == b for a, b in (config["image_size"], config["patch_size"]))


def _num_patches(config):
    rows, columns = grid_size(config["image_size"], config["patch_size"])
    return rows * columns


def _one_or_two(size):
    return size[0] if size[0] == size[1] else list(size)


def _channels(config, model):
    return getattr(model, "encoder", model).input_shape[
        -1 if config["data_format"] == "channels_last" else 1
    ]


def _channel_values(value, channels):
    return [value] * channels if isinstance(value, float | int) else list(value)
