"""The sizes that papers name, and how many parameters a model has."""

import math
import re
from collections.abc import Mapping
from typing import Any

from keras_vit import arguments
from keras_vit.layers.mlp import GATED
from keras_vit.layers.rotary import checked_rope
from keras_vit.models.efficientnet import (
    STEM_FILTERS,
    TOP_FILTERS,
    blocks,
    rounded_filters,
)
from keras_vit.models.resnet_stem import (
    checked_stem,
    count_resnet_parameters,
    map_size,
    stride,
)

# Ti, S and So400m: DeiT (arXiv 2012.12877) and arXiv 2305.13035; B, L, H: ViT (arXiv
# 2010.11929), table 1; g and G: *Scaling Vision Transformers* (arXiv 2106.04560); M:
# DeiT-3 (arXiv 2204.07118); gopt: SigLIP 2's g-opt (arXiv 2502.14786, sizes of
# BigVision's code); giant: DINOv2's ViT-g (arXiv 2304.07193), whose MLPs are SwiGLU;
# Splus, Hplus and 7B: DINOv3 (arXiv 2508.10104); PEG: Perception Encoder's G (arXiv
# 2504.13181); AIML to AIM3B: AIMv2 (arXiv 2411.14402); the others have no paper but the
# code of timm (wee … So150m2), TinyCLIP (Xs) and OpenCLIP (Bplus, its B-16-plus).
SIZES = {
    name: {
        "hidden_dim": hidden_dim,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
    }
    for name, num_layers, hidden_dim, mlp_dim, num_heads in [
        ("Ti", 12, 192, 768, 3),
        ("Xs", 10, 256, 1024, 4),
        ("wee", 14, 256, 1280, 4),
        ("little", 14, 320, 1792, 5),
        ("S", 12, 384, 1536, 6),
        ("Splus", 12, 384, 1536, 6),
        ("M", 12, 512, 2048, 8),
        ("mediumd", 20, 512, 2048, 8),
        ("betwixt", 12, 640, 2560, 10),
        ("B", 12, 768, 3072, 12),
        ("Bplus", 12, 896, 3584, 14),
        ("So150m", 18, 896, 2304, 14),
        ("So150m2", 21, 832, 2176, 13),
        ("L", 24, 1024, 4096, 16),
        ("So400m", 27, 1152, 4304, 16),
        ("H", 32, 1280, 5120, 16),
        ("Hplus", 32, 1280, 5120, 20),
        ("g", 40, 1408, 6144, 16),
        ("gopt", 40, 1536, 6144, 16),
        ("giant", 40, 1536, 4096, 24),
        ("G", 48, 1664, 8192, 16),
        ("PEG", 50, 1536, 8960, 16),
        ("7B", 40, 4096, 8192, 32),
        ("AIML", 24, 1024, 2816, 8),
        ("AIMH", 24, 1536, 4096, 12),
        ("AIM1B", 24, 2048, 5632, 16),
        ("AIM3B", 24, 3072, 8192, 24),
    ]
}
# Of one family each, whose files have other names; their MLPs are SwiGLU.
DINOV3_SIZES = ("Splus", "Hplus", "7B")
AIMV2_SIZES = ("AIML", "AIMH", "AIM1B", "AIM3B")

# ViT (arXiv 2010.11929), section 3.1 and table 2, and AugReg (arXiv 2106.10270): the size
# of the ViT, patch size on the ResNet's feature map, units of the ResNet's stages. The
# number in the name is how many pixels of the image a token stands for, but for R+Ti/16,
# whose tokens stand for 32.
HYBRIDS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "RViTTi16": ("Ti", 8, ()),
    "R26ViTS32": ("S", 1, (2, 2, 2, 2)),
    "R26ViTB32": ("B", 1, (2, 2, 2, 2)),
    "R50ViTB16": ("B", 1, (3, 4, 9)),
    "R50ViTL32": ("L", 1, (3, 4, 6, 3)),
}

# BiT (arXiv 1912.11370), section 3.1: units of the stages, width.
BITS: dict[str, dict[str, Any]] = {
    f"BiTR{depth}x{width}": {"num_units": num_units, "width_factor": width}
    for depth, num_units, widths in [
        (50, (3, 4, 6, 3), (1, 3)),
        (101, (3, 4, 23, 3), (1, 3)),
        (152, (3, 8, 36, 3), (2, 4)),
    ]
    for width in widths
}

# Noisy Student (arXiv 1911.04252), table 9: width 4.3, depth 5.3, of EfficientNet-B0's.
EFFICIENTNETS: dict[str, dict[str, Any]] = {
    "EfficientNetL2": {"num_blocks": (6, 11, 11, 16, 16, 22, 6), "width_factor": 4.3},
}


def architecture_fields(architecture: str) -> dict[str, Any]:
    """The arguments of a model of a named architecture.

    Args:
        architecture: `"ViT"`, the name of a size of `SIZES` and the patch size, such as
            `"ViTB16"`, with `_` between two digits (`"ViTSo150m2_16"`), or a name of
            `HYBRIDS`, `BITS` or `EFFICIENTNETS`.

    Raises:
        ValueError: if there is no such architecture.
    """
    if architecture in BITS or architecture in EFFICIENTNETS:
        return dict({**BITS, **EFFICIENTNETS}[architecture])
    if architecture in HYBRIDS:
        size, patch_size, num_units = HYBRIDS[architecture]
        stem = {"num_units": num_units, "width_factor": 1}
        return {"patch_size": patch_size, **SIZES[size], "stem": stem}
    match = re.fullmatch(r"ViT(?:(.*[A-Za-z])|(.*\d)_)(\d+)(plus)?", architecture)
    size = match and (match[1] or match[2]) + (match[4] or "")
    if size not in SIZES:
        raise ValueError(
            "An architecture is named 'ViT', a size and a patch size, such as 'ViTB16', "
            f"or as one of {', '.join([*HYBRIDS, *BITS, *EFFICIENTNETS])}. Received: "
            f"{architecture!r}. "
            f"Sizes: {', '.join(SIZES)}"
        )
    gate = {"mlp": "swiglu"} if size in (*DINOV3_SIZES, *AIMV2_SIZES) else {}
    return {"patch_size": int(match[3]), **SIZES[size], **gate}


def paper_name(architecture: str) -> str:
    """The name in papers: `"ViT-B/16"`, `"R50+ViT-B/16"`, `"BiT-R50x1"`."""
    if architecture in BITS or architecture in EFFICIENTNETS:
        return architecture.replace("BiT", "BiT-").replace("Net", "Net-")
    resnet, size, patch, plus = re.fullmatch(
        r"(R\d*)?ViT(.*[A-Za-z])(\d+)(plus)?", architecture
    ).groups()
    size += "+" if plus else ""
    return f"{resnet}+ViT-{size}/{patch}" if resnet else f"ViT-{size}/{patch}"


def size_name(config: Mapping[str, Any]) -> str | None:
    """The name in papers of the model of a config, of any patch size, or `None`."""
    if "patch_size" not in config:
        networks = {**BITS, **EFFICIENTNETS}.items()
        names = [n for n, size in networks if size.items() <= config.items()]
        return paper_name(names[0]) if names else None
    stem = checked_stem(config.get("stem"))
    for name, size in SIZES.items():
        if any(config.get(key) != value for key, value in size.items()):
            continue
        if stem is None:
            patch = dict.fromkeys(arguments.pair(config["patch_size"], "patch_size"))
            return f"ViT-{name}/{'×'.join(map(str, patch))}"  # one number if square
        for hybrid in HYBRIDS:
            fields = architecture_fields(hybrid)
            same = fields["hidden_dim"] == size["hidden_dim"]
            parts = [(s["num_units"], s["width_factor"]) for s in (stem, fields["stem"])]
            if same and parts[0] == parts[1]:
                return paper_name(hybrid)
    return None


def grid_size(
    image_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
    stem: Mapping[str, Any] | None = None,
) -> tuple[int, int]:
    """(rows, columns) of the patches of an image, or of a stem's feature map."""
    size = map_size(arguments.pair(image_size, "image_size"), stem)
    patch_size = arguments.pair(patch_size, "patch_size")
    return tuple(side // patch for side, patch in zip(size, patch_size, strict=True))


def image_size_of(
    grid: tuple[int, int],
    patch_size: int | tuple[int, int],
    stem: Mapping[str, Any] | None = None,
) -> tuple[int, int]:
    """(height, width) of images that have a grid of patches."""
    patch_size = arguments.pair(patch_size, "patch_size")
    below = stride(stem)
    return tuple(n * patch * below for n, patch in zip(grid, patch_size, strict=True))


def count_parameters(
    *,
    num_units: tuple[int, ...] | None = None,
    num_blocks: tuple[int, ...] | None = None,
    **config: Any,
) -> int:
    """Number of parameters of the model of a config.

    Args:
        num_units: of a `BiTResNet`, see there; `None` for others.
        num_blocks: of an `EfficientNet`, see there; `None` for others.
        **config: the model's other arguments, and `channels` of the images (3).
    """
    if num_units is not None:
        return count_bit_parameters(num_units, **config)
    if num_blocks is not None:
        return count_efficientnet_parameters(num_blocks, **config)
    return count_vit_parameters(**config)


def count_vit_parameters(
    image_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
    hidden_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    *,
    classes: int = 0,
    pooling: str | None = "token",
    pooling_mlp_dim: int | None = None,
    class_token: bool | None = None,
    distilled: bool = False,
    num_registers: int = 0,
    num_prefix_positions: int | None = None,
    representation_size: int | None = None,
    position: str = "learned",
    position_at: str = "stem",
    patch_norm: bool = False,
    pre_norm: bool = False,
    fc_norm: bool = False,
    final_norm: bool = True,
    patch_bias: bool | None = None,
    mlp: str = "gelu",
    qkv_bias: bool | str = True,
    qk_norm: bool = False,
    rope: Mapping | str | None = None,
    attention_sub_norm: bool = False,
    mlp_sub_norm: bool = False,
    mlp_bias: bool = True,
    projection_bias: bool = True,
    norm: str = "layer",
    layer_scale: float | None = None,
    stem: dict[str, Any] | None = None,
    channels: int = 3,
    **others: Any,
) -> int:
    """Number of parameters of a `VisionTransformer` of images with so many channels.

    It takes the model's arguments; `others` do not change the number.
    """
    rows, columns = grid_size(image_size, patch_size, stem)
    patch = math.prod(arguments.pair(patch_size, "patch_size"))
    below = 0
    if stem := checked_stem(stem):
        below, channels = count_resnet_parameters(
            stem["num_units"], stem["width_factor"], channels=channels
        )
    if class_token is None:
        class_token = pooling in ("token", "token_gap", None)
    tokens = class_token + distilled
    own = tokens if num_prefix_positions is None else num_prefix_positions
    patch_bias = not pre_norm if patch_bias is None else patch_bias

    parts = 1 if norm == "rms" else 2  # weights of a norm for each channel
    one_norm = parts * hidden_dim
    biases = 2 if qkv_bias == "qv" else 3 * qkv_bias
    attention = (4 * hidden_dim + biases + projection_bias) * hidden_dim
    attention += one_norm * attention_sub_norm
    attention += 2 * parts * (hidden_dim // num_heads) * qk_norm
    if position == "relative":
        offsets = (2 * rows - 1) * (2 * columns - 1)
        attention += (offsets + 3 * bool(tokens + num_registers)) * num_heads
    if position == "relative_key":
        attention += (2 * rows * columns + 3 * bool(tokens + num_registers)) * hidden_dim
    rope = checked_rope(rope)
    attention += hidden_dim * (rope is not None and rope["kind"] == "mixed")
    block = 2 * one_norm + attention + _mlp(hidden_dim, mlp_dim, mlp in GATED, mlp_bias)
    block += 2 * hidden_dim * (layer_scale is not None) + parts * mlp_dim * mlp_sub_norm
    attends = hidden_dim + 4 * (hidden_dim + 1) * hidden_dim
    mlp_block = 2 * hidden_dim + _mlp(hidden_dim, pooling_mlp_dim or mlp_dim)
    poolings = {
        "map": attends + mlp_block,
        "query": attends - (hidden_dim + 1 + 2 * (qkv_bias is not True)) * hidden_dim,
    }
    positions = {  # of the patches, then of those of the tokens before them
        "learned": (rows * columns + own) * hidden_dim,
        "learned2d": (rows + columns) * (hidden_dim // 2) + own * hidden_dim,
    }
    pooled = hidden_dim * (1 + (pooling == "token_gap"))
    features = representation_size or pooled

    return (
        below
        + (channels * patch + patch_bias) * hidden_dim
        + (tokens + num_registers) * hidden_dim
        + positions.get(position, 0) * (num_layers if position_at == "each_layer" else 1)
        + one_norm * (patch_norm + pre_norm)
        + num_layers * block
        + parts * (pooled if fc_norm else hidden_dim) * final_norm
        + poolings.get(pooling, 0)
        + (pooled + 1) * features * bool(representation_size)
        + (features + 1) * classes * (1 + distilled)
    )


def count_bit_parameters(
    num_units: tuple[int, ...],
    width_factor: float = 1,
    *,
    classes: int = 0,
    channels: int = 3,
    **others: Any,
) -> int:
    """Number of parameters of a `BiTResNet` of images with so many channels."""
    count, outputs = count_resnet_parameters(
        num_units, width_factor, channels=channels, pre_activation=True
    )
    return count + 2 * outputs + (outputs + 1) * classes


def count_efficientnet_parameters(
    num_blocks: tuple[int, ...],
    width_factor: float = 1,
    *,
    classes: int = 0,
    channels: int = 3,
    **others: Any,
) -> int:
    """Number of parameters of an `EfficientNet` of images with so many channels.

    The moving means and variances of its batch norms are no parameters.
    """
    filters = rounded_filters(STEM_FILTERS, width_factor)
    top = rounded_filters(TOP_FILTERS, width_factor)
    count = 9 * channels * filters + 2 * filters
    for _, block in blocks(num_blocks, width_factor):
        inputs, outputs, inside = (
            block[name] for name in ("filters_in", "filters_out", "squeezed")
        )
        wide = inputs * block["expand_ratio"]
        count += (inputs + 2) * wide * (block["expand_ratio"] > 1)
        count += (block["kernel_size"] ** 2 + 2) * wide  # depthwise
        count += (wide + 1) * inside + (inside + 1) * wide
        count += (wide + 2) * outputs
        filters = outputs
    return count + (filters + 2) * top + (top + 1) * classes


def _mlp(hidden_dim, mlp_dim, gated=False, bias=True):
    return (hidden_dim + bias) * mlp_dim * (1 + gated) + (mlp_dim + bias) * hidden_dim
