"""The layout of KerasHub's ViT presets (`model.weights.h5`, `task.weights.h5`)."""

from keras_vit.weights.layouts.layout import POSITIONS, TORCH_DEFAULTS, Layout, row

_EMBEDDING = "layers/vi_t_patching_and_embedding"
_BLOCK = "layers/vi_t_encoder/encoder_layers/vi_t_encoder_block_{i}"


def _pair(source, target, names=("kernel", "bias")):
    """Rows of a layer, whose weights Keras numbers."""
    return tuple(
        row(f"{source}/vars/{number}", f"{target}/{name}")
        for number, name in enumerate(names)
    )


def _norm(source, target):
    return _pair(source, target, ("gamma", "beta"))


def _qkv(number):
    parts = ("query", "key", "value")
    return tuple(f"{_BLOCK}/mha/{part}_dense/vars/{number}" for part in parts)


def _config_arguments(config):
    """Arguments in the `config.json` of a backbone and the `task.json` beside it."""
    backbone, task = config.get("config") or {}, config.get("task") or {}
    pooling = (task.get("config") or {}).get("pooling")
    if pooling == "gap" and backbone.get("use_class_token", True):
        raise ValueError(
            "pooling='gap' averages the class token and the patches, which no pooling "
            "here does"
        )
    return {
        "num_heads": backbone.get("num_heads"),
        "image_size": (backbone.get("image_shape") or ())[:2] or None,
        "layer_norm_epsilon": backbone.get("layer_norm_epsilon"),
        "pooling": pooling,
    }


def _reason_to_refuse(config, names, shapes):
    name = config.get("class_name", "ViTBackbone")
    if name != "ViTBackbone":
        return f"config.json has class_name={name!r}, which is not built here"
    return None


KERAS_HUB = Layout(
    name="keras_hub",
    rows=(
        *_pair(f"{_EMBEDDING}/patch_embedding", "patch_embedding"),
        row(f"{_EMBEDDING}/vars/0", "class_token/tokens", "drop first axis"),
        row(
            f"{_EMBEDDING}/position_embedding/vars/0", POSITIONS, "positions without batch"
        ),
        *_norm(f"{_BLOCK}/layer_norm_1", "block_{i}/attention_norm"),
        row(_qkv(0), "block_{i}/attention/qkv/kernel", "stack kernels"),
        row(_qkv(1), "block_{i}/attention/qkv/bias", "stack biases"),
        *_pair(f"{_BLOCK}/mha/output_dense", "block_{i}/attention/projection"),
        *_norm(f"{_BLOCK}/layer_norm_2", "block_{i}/mlp_norm"),
        *_pair(f"{_BLOCK}/mlp/dense_1", "block_{i}/mlp/dense_1"),
        *_pair(f"{_BLOCK}/mlp/dense_2", "block_{i}/mlp/dense_2"),
        *_norm("layers/vi_t_encoder/layer_norm", "encoder_norm"),
        *_pair("layers/pre_logits", "pre_logits"),
        *_pair("layers/predictions", "head"),
    ),
    marks=("layers/vi_t_encoder/.*",),
    aliases=(
        (r"^layers/vi_t_backbone/", ""),
        # Keras numbers the layers of a class from the second one.
        (r"/vi_t_encoder_block/", "/vi_t_encoder_block_0/"),
    ),
    dropped={r"optimizer/vars/\d+": "it belongs to the optimizer"},
    defaults=TORCH_DEFAULTS,
    num_prefix=lambda shapes: (int(f"{_EMBEDDING}/vars/0" in shapes),),
    config_arguments=_config_arguments,
    reason_to_refuse=_reason_to_refuse,
    keras_kernels=True,
)
