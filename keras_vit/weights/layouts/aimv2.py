"""The layout of AIMv2's image encoder, transformers' Aimv2VisionModel."""

from collections.abc import Mapping
from typing import Any

from keras_vit.models.sizes import AIMV2_SIZES, SIZES
from keras_vit.weights.layouts.layout import (
    POSITIONS,
    TORCH_DEFAULTS,
    Layout,
    demand,
    gates,
    row,
    weight_and_bias,
)

_ATTENTION = "layers.{i}.attention"
_HEADS = {SIZES[size]["hidden_dim"]: SIZES[size]["num_heads"] for size in AIMV2_SIZES}
_ACTIVATIONS = {"silu": "swiglu", "gelu": "geglu"}  # of gates


def _norm(source, target):
    return row(f"{source}.weight", f"{target}/gamma")


def _joined(names, source, target, move):
    """The rows of dense layers whose weights become one kernel, and biases one bias."""
    return (
        row([f"{source}.{n}.weight" for n in names], f"{target}/kernel", move[0]),
        row([f"{source}.{n}.bias" for n in names], f"{target}/bias", move[1]),
    )


def _config_arguments(config):
    processor = config.get("preprocessor_config") or {}
    activation = config.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"its config.json has hidden_act={activation!r}, which is not built here. "
            f"Known: {', '.join(_ACTIVATIONS)}"
        )
    return {
        "image_mean": processor.get("image_mean"),
        "image_std": processor.get("image_std"),
        "num_heads": config.get("num_attention_heads"),
        "image_size": config.get("image_size"),
        "layer_norm_epsilon": config.get("rms_norm_eps"),
        "mlp": _ACTIVATIONS[activation],
    }


def _heads(config, path, width):
    """The default of Aimv2VisionConfig, or without a config that of a published size."""
    if config is None:
        heads = _HEADS.get(width)
        return [("the published sizes of AIMv2", {"num_heads": heads})] if heads else []
    return [("the defaults of its class in transformers", {"num_heads": 8})]


def _reason_to_refuse(config, names, shapes):
    if config.get("is_native"):
        return "config.json has is_native=True: fixed positions, which are not built here"
    return None


AIMV2 = Layout(
    name="huggingface aimv2",
    rows=(
        *weight_and_bias("embeddings.patch_embed", "patch_embedding", "convolution"),
        _norm("embeddings.rms_norm", "patch_norm"),
        row("embeddings.position_embedding.weight", POSITIONS, "positions without batch"),
        _norm("layers.{i}.rms_norm1", "block_{i}/attention_norm"),
        *_joined(
            ("q_proj", "k_proj", "v_proj"),
            _ATTENTION,
            "block_{i}/attention/qkv",
            ("fuse weights of q k v", "fuse biases of q k v"),
        ),
        *weight_and_bias(
            f"{_ATTENTION}.out_proj", "block_{i}/attention/projection", "projection"
        ),
        _norm("layers.{i}.rms_norm2", "block_{i}/mlp_norm"),
        *gates(
            "layers.{i}.ffn.gate_proj", "layers.{i}.ffn.up_proj", "block_{i}/mlp/dense_1"
        ),
        *weight_and_bias("layers.{i}.ffn.down_proj", "block_{i}/mlp/dense_2", "transpose"),
        _norm("rms_norm", "encoder_norm"),
        row("head.cls_token", "pooling/probe", "drop first axis"),
        *_joined(
            ("k_proj", "v_proj"),
            "head",
            "pooling/key_value",
            ("fuse weights of k v", "fuse biases of k v"),
        ),
        *weight_and_bias("head.output_proj", "pooling/projection", "projection"),
    ),
    marks=(r"embeddings\.rms_norm\.weight", r"layers\.\d+\.rms_norm1\.weight"),
    aliases=((r"^encoder\.layers\.", "layers."),),
    written_names=((r"^layers\.", "encoder.layers."),),
    defaults={
        **TORCH_DEFAULTS,
        "norm": "rms",
        "layer_norm_epsilon": 1e-5,
        "mlp": "swiglu",
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    config_arguments=_config_arguments,
    architecture_arguments=_heads,
    reason_to_refuse=_reason_to_refuse,
)


def aimv2_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of transformers' `config.json` that are AIMv2's alone.

    Raises:
        ValueError: if the model has an argument that transformers' class lacks.
    """
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    demand(
        config,
        "transformers' AIMv2",
        norm=config["norm"] == "rms",
        patch_norm=config["patch_norm"],
        mlp=config["mlp"] in names,
        qkv_bias=config["qkv_bias"] in (True, False),
        projection_bias=config["projection_bias"] is config["qkv_bias"],
        position=config["position"] == "learned",
        pre_norm=not config["pre_norm"],
        fc_norm=not config["fc_norm"],
    )
    return {
        "intermediate_size": config["mlp_dim"],
        "hidden_act": names[config["mlp"]],
        "rms_norm_eps": config["layer_norm_epsilon"],
        "qkv_bias": config["qkv_bias"],
        "mlp_bias": config["mlp_bias"],
        "use_head": config["pooling"] == "query",
        "is_native": False,
        "attention_dropout": config["attention_dropout_rate"],
    }
