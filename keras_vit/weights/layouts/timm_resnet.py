"""The layout of timm's ResNetV2: BiT, and the stem of a hybrid."""

from keras_vit.weights.layouts.layout import Layout, TensorRow, norm, row
from keras_vit.weights.layouts.timm_config import images_in_config

_STEM = "patch_embed.backbone"
_UNIT = "stages.{stage}.blocks.{unit}"

# timm standardizes with a batch norm of epsilon 1e-8.
RESNET = {
    "group_norm_epsilon": 1e-5,
    "standardization": "variance",
    "standardization_epsilon": 1e-8,
}


def _standardized_conv(source, target):
    return (row(f"{source}.weight", f"{target}/kernel", "convolution"),)


def _unit(source, target):
    rows = []
    for i in (1, 2, 3):
        rows += _standardized_conv(f"{source}.conv{i}", f"{target}/conv_{i}")
        rows += norm(f"{source}.norm{i}", f"{target}/norm_{i}")
    return rows


def _units(source, target):
    """Rows of the units of all stages."""
    return (
        *_unit(source, target),
        *_standardized_conv(f"{source}.downsample.conv", f"{target}/shortcut_conv"),
        *norm(f"{source}.downsample.norm", f"{target}/shortcut_norm"),
    )


def _root(has_stages):
    """Rows of a stem's root, whose names depend on stages after it."""
    source = f"{_STEM}.stem" if has_stages else _STEM
    return (
        *_standardized_conv(f"{source}.conv", "stem_root/conv"),
        *norm(f"{source}.norm", "stem_root/norm"),
    )


def root_sources(has_stages: bool) -> set[str]:
    """Names of the tensors of a stem's root, in a stem with or without stages after it."""
    return {row.sources[0] for row in _root(has_stages)}


STEM_ROWS: tuple[TensorRow, ...] = (
    *_root(has_stages=True),
    *_root(has_stages=False),
    *_units(f"{_STEM}.{_UNIT}", "stem_stage_{stage}_unit_{unit}"),
)

TIMM_BIT = Layout(
    name="timm",
    model="bit",
    rows=(
        *_standardized_conv("stem.conv", "root/conv"),
        *_units(_UNIT, "stage_{stage}_unit_{unit}"),
        *norm("norm", "norm"),
        row("head.fc.weight", "head/kernel", "convolution of one pixel in torch"),
        row("head.fc.bias", "head/bias"),
    ),
    marks=(r"stem\.conv\.weight", r"stages\.0\.blocks\.0\.norm1\.weight", r"norm\.weight"),
    resnet_defaults=RESNET,
    config_arguments=images_in_config,
    names_in_paths=True,
)
