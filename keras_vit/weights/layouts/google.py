"""The layouts of Google's checkpoints (`.npz`): the ViT paper's code and BigVision; BiT."""

from keras_vit.weights.layouts.layout import POSITIONS, Layout, TensorRow, norm, row

_BLOCK = "Transformer/encoderblock_{i}"
_QKV = ("query", "key", "value")


def _dense(source, target):
    return (
        row(f"{source}/kernel", f"{target}/kernel"),
        row(f"{source}/bias", f"{target}/bias"),
    )


def _norm(source, target):
    return norm(source, target, "/scale", "/bias")


def _attention(source, target):
    kernels = tuple(f"{source}/{part}/kernel" for part in _QKV)
    biases = tuple(f"{source}/{part}/bias" for part in _QKV)
    return (
        row(kernels, f"{target}/qkv/kernel", "stack kernels"),
        row(biases, f"{target}/qkv/bias", "stack biases"),
        *_dense(f"{source}/out", f"{target}/projection"),
    )


_STEM_UNIT = ("block{stage}/unit{unit}", "stem_stage_{stage}_unit_{unit}")


def _convolution(source, target):
    return (row(f"{source}/kernel", f"{target}/kernel"),)


def _group_norm(source, target):
    return (
        row(f"{source}/scale", f"{target}/gamma", "spread over four axes"),
        row(f"{source}/bias", f"{target}/beta", "spread over four axes"),
    )


def _parts(unit, *pairs):
    """Rows of the parts of a unit: (function, name in the file, our name)."""
    theirs, ours = unit
    return (r for rows, a, b in pairs for r in rows(f"{theirs}/{a}", f"{ours}/{b}"))


ROWS: tuple[TensorRow, ...] = (
    *_convolution("conv_root", "stem_root/conv"),
    *_group_norm("gn_root", "stem_root/norm"),
    *_parts(
        _STEM_UNIT,
        *((_convolution, f"conv{i}", f"conv_{i}") for i in (1, 2, 3)),
        *((_group_norm, f"gn{i}", f"norm_{i}") for i in (1, 2, 3)),
        (_convolution, "conv_proj", "shortcut_conv"),
        (_group_norm, "gn_proj", "shortcut_norm"),
    ),
    *_dense("embedding", "patch_embedding"),
    row("cls", "class_token/tokens", "drop first axis"),
    row("Transformer/posembed_input/pos_embedding", POSITIONS, "positions"),
    # BigVision adds positions before the class token, which then has none.
    row("pos_embedding", POSITIONS, "positions"),
    *_norm(f"{_BLOCK}/LayerNorm_0", "block_{i}/attention_norm"),
    *_attention(f"{_BLOCK}/MultiHeadDotProductAttention_1", "block_{i}/attention"),
    *_norm(f"{_BLOCK}/LayerNorm_2", "block_{i}/mlp_norm"),
    *_dense(f"{_BLOCK}/MlpBlock_3/Dense_0", "block_{i}/mlp/dense_1"),
    *_dense(f"{_BLOCK}/MlpBlock_3/Dense_1", "block_{i}/mlp/dense_2"),
    *_norm("Transformer/encoder_norm", "encoder_norm"),
    row("MAPHead_0/probe", "pooling/probe", "drop first axis"),
    *_attention("MAPHead_0/MultiHeadDotProductAttention_0", "pooling/attention"),
    *_norm("MAPHead_0/LayerNorm_0", "pooling/mlp_norm"),
    *_dense("MAPHead_0/MlpBlock_0/Dense_0", "pooling/mlp/dense_1"),
    *_dense("MAPHead_0/MlpBlock_0/Dense_1", "pooling/mlp/dense_2"),
    *_dense("pre_logits", "pre_logits"),
    *_dense("head", "head"),
)


def _not_written(config, num_prefix):
    """The name of the positions in the other project: BigVision or the paper's code."""
    bare_token = config["class_token"] and not num_prefix
    if bare_token or config["pooling"] == "map":
        return ("Transformer/posembed_input/pos_embedding",)
    return ("pos_embedding",)


_IN_BLOCK = r"(?<=^Transformer/encoderblock)((?:_\d+)?)"

GOOGLE = Layout(
    name="google",
    rows=ROWS,
    first=1,
    marks=("Transformer/encoderblock.*",),
    # Submodules of a block: newer files and BigVision's → published files.
    aliases=(
        (rf"{_IN_BLOCK}/LayerNorm_1/", r"\1/LayerNorm_2/"),
        (rf"{_IN_BLOCK}/MlpBlock_0/", r"\1/MlpBlock_3/"),
        (
            rf"{_IN_BLOCK}/MultiHeadDotProductAttention_0/",
            r"\1/MultiHeadDotProductAttention_1/",
        ),
        # Earlier names of BigVision.
        (r"^Transformer/pos_embedding$", "pos_embedding"),
        (
            r"^(probe$|LayerNorm_0/|MlpBlock_0/|MultiHeadDotProductAttention_0/)",
            r"MAPHead_0/\1",
        ),
    ),
    defaults={
        "gelu_approximate": True,
        "layer_norm_epsilon": 1e-6,
        "position_interpolation": "linear",
    },
    resnet_defaults={
        "group_norm_epsilon": 1e-6,
        "standardization": "std",
        "standardization_epsilon": 1e-5,
    },
    num_prefix=lambda shapes: (
        (1,) if "cls" in shapes and "pos_embedding" not in shapes else (0,)
    ),
    keras_kernels=True,
    without_positions="sincos2d",
    written_prefix=lambda class_token, registers: (class_token, 0),
    not_written=_not_written,
)


_BIT_UNIT = ("resnet/block{stage}/unit{unit:02}", "stage_{stage}_unit_{unit}")


def _bit_convolution(source, target):
    return _convolution(f"{source}/standardized_conv2d", target)


def _bit_norm(source, target):
    return (
        row(f"{source}/group_norm/gamma", f"{target}/gamma", "same"),
        row(f"{source}/group_norm/beta", f"{target}/beta", "same"),
    )


BIT = Layout(
    name="google",
    model="bit",
    rows=(
        *_bit_convolution("resnet/root_block", "root/conv"),
        *_parts(
            _BIT_UNIT,
            *(
                (rows, part, f"{name}_{i}")
                for i, part in enumerate("abc", 1)
                for rows, name in ((_bit_norm, "norm"), (_bit_convolution, "conv"))
            ),
            (_bit_convolution, "a/proj", "shortcut_conv"),
        ),
        *_bit_norm("resnet", "norm"),
        row("resnet/head/conv2d/kernel", "head/kernel", "convolution of one pixel"),
        row("resnet/head/conv2d/bias", "head/bias"),
    ),
    first=1,
    marks=("resnet/root_block/.*", "resnet/block1/unit01/.*"),
    resnet_defaults={
        "group_norm_epsilon": 1e-5,
        "standardization": "variance",
        "standardization_epsilon": 1e-10,
    },
    keras_kernels=True,
)
