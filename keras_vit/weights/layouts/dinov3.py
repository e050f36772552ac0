"""The layouts of DINOv3: its own files, and those of transformers' DINOv3ViTModel."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_vit.layers.mlp import GATED
from keras_vit.layers.rotary import periods_of
from keras_vit.weights.layouts.huggingface import hidden_activation
from keras_vit.weights.layouts.layout import (
    TORCH_DEFAULTS,
    Layout,
    TensorRow,
    demand,
    gates,
    norm,
    row,
    weight_and_bias,
)

PERIODS = "rope_embed.periods"
_PRETRAINING = "only masked pre-training uses it"
_DEFAULTS = {
    **TORCH_DEFAULTS,
    "layer_norm_epsilon": 1e-5,
    "pooling": "token",
    "image_size": (224, 224),
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
}


def _block_rows(block: str, scale: str) -> tuple[TensorRow, ...]:
    """The rows of the norms and scales of a block."""
    return (
        *norm(f"{block}.norm1", "block_{i}/attention_norm"),
        *norm(f"{block}.norm2", "block_{i}/mlp_norm"),
        row(f"{block}.{scale.format(1)}", "block_{i}/attention_scale/scale"),
        row(f"{block}.{scale.format(2)}", "block_{i}/mlp_scale/scale"),
        *norm("norm", "encoder_norm"),
    )


class _MLP:
    """Names of the layers of an MLP, without and with a gate.

    Args:
        block: name of the block.
        plain: names of the first and the last layer.
        gated: names of the gate, of the values that it multiplies, and of the last layer.
    """

    def __init__(self, block: str, plain: tuple[str, str], gated: tuple[str, str, str]):
        self.plain = [f"{block}.mlp.{name}" for name in plain]
        self.gated = [f"{block}.mlp.{name}" for name in gated]

    def rows(self) -> Iterator[TensorRow]:
        """The rows of both kinds."""
        gate, values, _ = self.gated
        yield from gates(gate, values, "block_{i}/mlp/dense_1")
        for part in weight_and_bias(self.plain[0], "block_{i}/mlp/dense_1", "transpose"):
            yield part._replace(unless=f"{gate}.weight")
        for last in dict.fromkeys((self.plain[-1], self.gated[-1])):
            yield from weight_and_bias(last, "block_{i}/mlp/dense_2", "transpose")

    def not_written(self, config: Mapping, num_prefix: int) -> set[str]:
        """The rows of the other kind than that of a model."""
        own, other = self.plain, self.gated
        if config["mlp"] in GATED:
            own, other = other, own
        first_or_last = {other[0], other[-1]} - {own[-1]}
        return {f"{name}.{part}" for name in first_or_last for part in ("weight", "bias")}


# DINOv3's own files.

_META = "blocks.{i}"
_BIAS = f"{_META}.attn.qkv.bias"
_META_MLP = _MLP(_META, ("fc1", "fc2"), ("w1", "w2", "w3"))


def heads_of(width: int) -> int | None:
    """The heads of the published models of a width, or None for another width.

    They are of 64 channels, or of 128 in the largest model.
    """
    return None if width % 64 else width // (128 if width == 4096 else 64)


def _heads(config, path, width):
    heads = heads_of(width)
    return [("the published sizes of DINOv3", {"num_heads": heads})] if heads else []


def _rope(tensors: Mapping[str, Callable[[], np.ndarray]]) -> dict[str, Any]:
    """Rotary positions with the file's periods, which are rounded to bfloat16."""
    if PERIODS not in tensors:
        return {}
    periods, rope = tensors[PERIODS](), {"kind": "dinov3"}
    if not np.array_equal(periods, periods_of(rope, 4 * len(periods))):
        rope["periods"] = tuple(map(float, periods))
    return {"rope": rope}


META = Layout(
    name="meta",
    rows=(
        *weight_and_bias("patch_embed.proj", "patch_embedding", "convolution"),
        row("cls_token", "class_token/tokens", "drop first axis"),
        row("storage_tokens", "registers/tokens", "drop first axis"),
        row(f"{_META}.attn.qkv.weight", "block_{i}/attention/qkv/kernel", "fused weight"),
        row(
            (_BIAS, f"{_BIAS}_mask"),
            "block_{i}/attention/query_value_bias",
            "masked bias of q k v",
        ),
        row(_BIAS, "block_{i}/attention/qkv/bias", "fused bias", unless=f"{_BIAS}_mask"),
        *weight_and_bias(
            f"{_META}.attn.proj", "block_{i}/attention/projection", "projection"
        ),
        *_block_rows(_META, "ls{}.gamma"),
        *_META_MLP.rows(),
    ),
    marks=(r"storage_tokens|rope_embed\.periods", r"blocks\.\d+\.norm1\..*"),
    # Of a training in chunks of blocks.
    aliases=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),),
    dropped={
        "mask_token": _PRETRAINING,
        r"local_cls_norm\..*": "only pre-training uses it",
        PERIODS: "it becomes the argument `rope`",
    },
    defaults={**_DEFAULTS, "rope": "dinov3"},
    architecture_arguments=_heads,
    tensor_arguments=_rope,
    not_written=_META_MLP.not_written,
)


def check_meta(config: Mapping[str, Any]) -> None:
    """Refuses a model that DINOv3's own class cannot be.

    Raises:
        ValueError: if it has another argument than that class.
    """
    rope = config["rope"] or {}
    demand(
        config,
        "DINOv3's own files",
        rope=rope.get("kind") == "dinov3" and rope["pairs"] == "halves",
        position=config["position"] == "none",
        class_token=config["class_token"],
        classes=not config["classes"],
        pooling=config["pooling"] in ("token", None),
        layer_norm_epsilon=config["layer_norm_epsilon"] == 1e-5,
        mlp=config["mlp"] in ("gelu", "swiglu"),
        gelu_approximate=not config["gelu_approximate"] or config["mlp"] in GATED,
    )


def meta_tensors(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of DINOv3's own files that are no weights of a model here."""
    head_dim = config["hidden_dim"] // config["num_heads"]
    return {
        PERIODS: periods_of(config["rope"], head_dim),
        "mask_token": np.zeros((1, config["hidden_dim"]), "float32"),
    }


# transformers' files.

_BLOCK = "layer.{i}"
_ATTENTION = f"{_BLOCK}.attention"
_QUERY, _KEY, _VALUE = (f"{_ATTENTION}.{part}_proj" for part in "qkv")
_HF_MLP = _MLP(_BLOCK, ("up_proj", "down_proj"), ("gate_proj", "up_proj", "down_proj"))
_ACTIVATIONS = {"silu": "swiglu", "gelu": "geglu"}  # of gates


def _config_arguments(config):
    processor = config.get("preprocessor_config") or {}
    rope = {"kind": "dinov3"}
    theta = config.get(
        "rope_theta", (config.get("rope_parameters") or {}).get("rope_theta")
    )
    if theta is not None:
        rope["temperature"] = float(theta)
    arguments = {
        "image_mean": processor.get("image_mean"),
        "image_std": processor.get("image_std"),
        "num_heads": config.get("num_attention_heads"),
        "image_size": config.get("image_size"),
        "layer_norm_epsilon": config.get("layer_norm_eps"),
        "rope": rope if config else None,
    }
    if config.get("use_gated_mlp"):
        activation = config.get("hidden_act", "gelu")
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"its config.json has hidden_act={activation!r} with a gate, which is not "
                f"built here. Known: {', '.join(_ACTIVATIONS)}"
            )
        return {**arguments, "mlp": _ACTIVATIONS[activation]}
    return {**arguments, **hidden_activation(config)}


def _class_defaults(config, path, width):
    """The defaults of DINOv3ViTConfig."""
    if config is None:
        return _heads(config, path, width)
    return [("the defaults of its class in transformers", {"num_heads": 6})]


HF_DINOV3 = Layout(
    name="huggingface dinov3",
    rows=(
        row("embeddings.cls_token", "class_token/tokens", "drop first axis"),
        row("embeddings.register_tokens", "registers/tokens", "drop first axis"),
        *weight_and_bias("embeddings.patch_embeddings", "patch_embedding", "convolution"),
        row(
            [f"{part}.weight" for part in (_QUERY, _KEY, _VALUE)],
            "block_{i}/attention/qkv/kernel",
            "fuse weights of q k v",
        ),
        row(
            [f"{part}.bias" for part in (_QUERY, _KEY, _VALUE)],
            "block_{i}/attention/qkv/bias",
            "fuse biases of q k v",
        ),
        row(
            (f"{_QUERY}.bias", f"{_VALUE}.bias"),
            "block_{i}/attention/query_value_bias",
            "stack biases of q v",
            unless=f"{_KEY}.bias",
        ),
        *weight_and_bias(
            f"{_ATTENTION}.o_proj", "block_{i}/attention/projection", "projection"
        ),
        *_block_rows(_BLOCK, "layer_scale{}.lambda1"),
        *_HF_MLP.rows(),
    ),
    marks=(r"embeddings\..*", r"layer\.\d+\.layer_scale1\.lambda1"),
    dropped={r"embeddings\.mask_token": _PRETRAINING},
    defaults={**_DEFAULTS, "rope": "dinov3"},
    config_arguments=_config_arguments,
    architecture_arguments=_class_defaults,
    gate_activation=lambda fields, shapes: "swiglu",
    not_written=_HF_MLP.not_written,
)


def dinov3_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of transformers' `config.json` that are DINOv3's alone.

    Raises:
        ValueError: if the model has an argument that transformers' class lacks.
    """
    rope = config["rope"]
    demand(
        config,
        "transformers' DINOv3",
        rope=rope["kind"] == "dinov3"
        and rope["pairs"] == "halves"
        and rope["periods"] is None,
        position=config["position"] == "none",
    )
    bias = config["qkv_bias"]
    is_gated = config["mlp"] in GATED
    fields = {
        "intermediate_size": config["mlp_dim"],
        "num_register_tokens": config["num_registers"],
        "layerscale_value": config["layer_scale"] or 1.0,
        "rope_theta": config["rope"]["temperature"],
        "query_bias": bool(bias),
        "key_bias": bias is True,
        "value_bias": bool(bias),
        "use_gated_mlp": is_gated,
        "attention_dropout": config["attention_dropout_rate"],
    }
    if is_gated:
        names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
        fields["hidden_act"] = names[config["mlp"]]
    return fields
