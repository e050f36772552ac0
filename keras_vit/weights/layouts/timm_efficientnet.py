"""The layout of timm's EfficientNets that are TensorFlow's (`tf_efficientnet_…`)."""

from keras_vit.weights.layouts.layout import Layout, TensorRow, norm, row, weight_and_bias
from keras_vit.weights.layouts.timm_config import images_in_config

_STAGES = 7


def _convolution(source, target, move="convolution"):
    return (row(f"{source}.weight", f"{target}/kernel", move),)


def _batch_norm(source, target):
    return (
        *norm(source, target),
        row(f"{source}.running_mean", f"{target}/moving_mean"),
        row(f"{source}.running_var", f"{target}/moving_variance"),
    )


def _block(stage):
    """Rows of the blocks of a stage; those of the first one do not expand."""
    source, target = f"blocks.{stage}.{{unit}}", f"stage_{stage}_unit_{{unit}}"
    names = {
        "conv_dw": "dwconv",
        "bn1": "bn",
        "conv_pw": "project_conv",
        "bn2": "project_bn",
    }
    if stage:
        names = {
            "conv_pw": "expand_conv",
            "bn1": "expand_bn",
            "conv_dw": "dwconv",
            "bn2": "bn",
            "conv_pwl": "project_conv",
            "bn3": "project_bn",
        }
    for theirs, ours in names.items():
        both = f"{source}.{theirs}", f"{target}_{ours}"
        if theirs.startswith("bn"):
            yield from _batch_norm(*both)
        elif theirs == "conv_dw":
            yield from _convolution(*both, "depthwise convolution")
        else:
            yield from _convolution(*both)
    for name in ("reduce", "expand"):
        yield from weight_and_bias(
            f"{source}.se.conv_{name}", f"{target}_se_{name}", "convolution"
        )


ROWS: tuple[TensorRow, ...] = (
    *_convolution("conv_stem", "stem_conv"),
    *_batch_norm("bn1", "stem_bn"),
    *(row for stage in range(_STAGES) for row in _block(stage)),
    *_convolution("conv_head", "top_conv"),
    *_batch_norm("bn2", "top_bn"),
    *weight_and_bias("classifier", "head", "transpose"),
)


def _reason_to_refuse(config, names, shapes):
    """Timm's other EfficientNets have these tensors, too."""
    if "architecture" in config:  # of a known name
        return None
    return (
        "timm's `efficientnet_…` have the tensors of TensorFlow's `tf_efficientnet_…`, and "
        "another padding and epsilon. Put the config.json with its `architecture` beside it"
    )


TIMM_EFFICIENTNET = Layout(
    name="timm",
    model="efficientnet",
    rows=ROWS,
    marks=(
        r"conv_stem\.weight",
        r"blocks\.0\.0\.conv_dw\.weight",
        r"blocks\.0\.0\.se\.conv_reduce\.weight",
        r"conv_head\.weight",
    ),
    resnet_defaults={
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
    },
    config_arguments=images_in_config,
    reason_to_refuse=_reason_to_refuse,
    names_in_paths=True,
)
