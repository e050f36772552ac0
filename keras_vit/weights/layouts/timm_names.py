"""Names of timm's architectures that are computed exactly here, and their arguments."""

import os
import re
from collections.abc import Mapping
from typing import Any

from keras_vit.weights.layouts import timm_eva_names

# (width, attention heads) → names in the registry of timm 1.0.31 that are computed exactly
# here.
_EXACT = {
    (64, 2): "test_vit test_vit2",
    (192, 3): """
        deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 vit_tiny_patch16_224
        vit_tiny_patch16_384
        vit_tiny_r_s16_p8_224 vit_tiny_r_s16_p8_384""",
    (256, 4): "vit_wee_patch16_reg1_gap_256 vit_xsmall_patch16_clip_224",
    (320, 5): "vit_little_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256",
    (384, 6): """
        deit3_small_patch16_224 deit3_small_patch16_384 deit_small_distilled_patch16_224
        deit_small_patch16_224 flexivit_small vit_small_patch14_dinov2
        vit_small_patch14_reg4_dinov2
        vit_small_patch16_224 vit_small_patch16_36x1_224 vit_small_patch16_384
        vit_small_patch32_224 vit_small_patch32_384 vit_small_patch8_224
        vit_small_r26_s32_224 vit_small_r26_s32_384""",
    (512, 8): """
        deit3_medium_patch16_224 vit_medium_patch16_clip_224 vit_medium_patch16_gap_240
        vit_medium_patch16_gap_256 vit_medium_patch16_gap_384
        vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256
        vit_medium_patch32_clip_224 vit_mediumd_patch16_reg4_gap_256
        vit_mediumd_patch16_reg4_gap_384""",
    (640, 10): """
        vit_betwixt_patch16_gap_256 vit_betwixt_patch16_reg1_gap_256
        vit_betwixt_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_384
        vit_betwixt_patch32_clip_224""",
    (768, 12): """
        beit_base_patch16_224 beit_base_patch16_384 beitv2_base_patch16_224
        naflexvit_base_patch16_gap naflexvit_base_patch16_siglip
        deit3_base_patch16_224 deit3_base_patch16_384
        deit_base_distilled_patch16_224 deit_base_distilled_patch16_384
        deit_base_patch16_224 deit_base_patch16_384 flexivit_base vit_base_patch14_dinov2
        vit_base_patch14_reg1_tipsv2 vit_base_patch14_reg4_dinov2 vit_base_patch16_224
        vit_base_patch16_224_miil vit_base_patch16_384 vit_base_patch16_clip_224
        vit_base_patch16_clip_384 vit_base_patch16_clip_quickgelu_224
        vit_base_patch16_reg4_gap_256 vit_base_patch16_rpn_224 vit_base_patch16_siglip_224
        vit_base_patch16_siglip_256 vit_base_patch16_siglip_384
        vit_base_patch16_siglip_512 vit_base_patch16_siglip_gap_224
        vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384
        vit_base_patch16_siglip_gap_512 vit_base_patch32_224 vit_base_patch32_384
        vit_base_patch32_clip_224 vit_base_patch32_clip_256 vit_base_patch32_clip_384
        vit_base_patch32_clip_448 vit_base_patch32_clip_quickgelu_224
        vit_base_patch32_siglip_256 vit_base_patch32_siglip_gap_256 vit_base_patch8_224
        vit_base_r26_s32_224 vit_base_r50_s16_224 vit_base_r50_s16_384""",
    (768, 16): "vit_base_patch16_gap_224",
    (832, 13): """
        naflexvit_so150m2_patch16_reg1_gap vit_so150m2_patch16_reg1_gap_256
        vit_so150m2_patch16_reg1_gap_384 vit_so150m2_patch16_reg1_gap_448""",
    (896, 14): """
        vit_base_patch16_plus_240 vit_base_patch16_plus_clip_240
        vit_base_patch32_plus_256 vit_so150m_patch16_reg4_gap_256
        vit_so150m_patch16_reg4_gap_384 vit_so150m_patch16_reg4_map_256""",
    (1024, 16): """
        beit_large_patch16_224 beit_large_patch16_384 beit_large_patch16_512
        beitv2_large_patch16_224
        deit3_large_patch16_224 deit3_large_patch16_384 eva_large_patch14_196
        eva_large_patch14_336 flexivit_large vit_large_patch14_224
        vit_large_patch14_clip_224 vit_large_patch14_clip_336
        vit_large_patch14_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_336
        vit_large_patch14_dinov2 vit_large_patch14_reg1_tipsv2
        vit_large_patch14_reg4_dinov2 vit_large_patch16_224 vit_large_patch16_384
        vit_large_patch16_siglip_256 vit_large_patch16_siglip_384
        vit_large_patch16_siglip_512 vit_large_patch16_siglip_gap_256
        vit_large_patch16_siglip_gap_384 vit_large_patch16_siglip_gap_512
        vit_large_patch32_224 vit_large_patch32_384 vit_large_r50_s32_224
        vit_large_r50_s32_384""",
    (1152, 16): """
        naflexvit_so400m_patch16_siglip
        vit_so400m_patch14_reg1_tipsv2 vit_so400m_patch14_siglip_224
        vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384
        vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378
        vit_so400m_patch14_siglip_gap_384 vit_so400m_patch14_siglip_gap_448
        vit_so400m_patch14_siglip_gap_896 vit_so400m_patch16_siglip_256
        vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512
        vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384
        vit_so400m_patch16_siglip_gap_512""",
    (1280, 16): """
        deit3_huge_patch14_224 vit_huge_patch14_224 vit_huge_patch14_clip_224
        vit_huge_patch14_clip_336 vit_huge_patch14_clip_378
        vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378
        vit_huge_patch14_gap_224 vit_huge_patch16_gap_448""",
    (1408, 16): """
        vit_giant_patch14_224 vit_giant_patch14_clip_224 vit_giant_patch16_gap_224""",
    (1536, 16): """
        vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384
        vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384""",
    (1536, 24): """
        vit_giant_patch14_dinov2 vit_giant_patch14_reg1_tipsv2
        vit_giant_patch14_reg4_dinov2""",
    (1664, 16): """
        vit_gigantic_patch14_224 vit_gigantic_patch14_clip_224
        vit_gigantic_patch14_clip_378 vit_gigantic_patch14_clip_quickgelu_224""",
}
SIZES = {
    name: size
    for table in (_EXACT, timm_eva_names.EXACT)
    for size, names in table.items()
    for name in names.split()
}
_BASELINES = r"resnetv2_\d+x\d_bit|tf_efficientnet_(b\d|l2)"

# Names of earlier versions of timm, with the tag as a part.
_EARLIER = (
    (r"_(\d+)_clip_laion2b$", r"_clip_\1"),
    (r"_(in21k|in21ft1k|sam|dino)$", ""),
    (r"_resnet50_(\d+)$", r"_r50_s16_\1"),
    (r"_bitm$|_bit_(distilled|teacher|teacher_384)$", "_bit"),
)

# Pattern of a name → the difference of such models, which tensors do not tell.
_DIFFERENCES = {
    r"_rope(?![a-z])|_dinov3|_pe_(core|spatial|lang)(?![a-z])|^eva02|_lingbot|_sapiens": (
        "it turns queries and keys by their positions (RoPE) in a way not known here"
    ),
    r"_rpn(?![a-z])": "its norms come after attention and MLP",
    r"^test_vit3$": "it pools the class token together with the patches",
    r"^naflexvit": "its positions differ",
    r"^beit3|relpos": "its attention differs",
}
# A name of timm's in the name of a file or folder.
_IN_PATH = (
    r"(?<![a-z0-9])(?:vit|deit3?|eva(?:02)?|beit(?:v2|3)?|cait|flexivit|naflexvit|test)_"
    r"[a-z0-9_]+"
)
_DEIT3 = r"(?<![a-z0-9])deit_3_([a-z]+)_(224|384)"  # names of its own files

# Architectures with the tanh approximation of GELU.
_TANH = r"(so400m|giantopt)_patch16_siglip|base_patch32_siglip|large_patch16_siglip_\w*512"


def known_name(text: str) -> str:
    """Name of an architecture without tag and owner, from a config or a hub."""
    name = text.rsplit("/", 1)[-1].rsplit(":", 1)[-1].split(".")[0]
    for pattern, replacement in _EARLIER:
        name = re.sub(pattern, replacement, name)
    return name


def is_exact(name: str) -> bool:
    """True if a model of this name computes the same here as in timm."""
    return name in SIZES or bool(re.fullmatch(_BASELINES, name))


def difference(name: str) -> str | None:
    """The difference of an architecture that tensors do not tell, or None if unknown."""
    return next((text for p, text in _DIFFERENCES.items() if re.search(p, name)), None)


def name_in_path(path: str) -> str | None:
    """The name of an architecture in the name of a file, its folder or the hub's cache.

    Only known names count, also with more after them ("…_224_flowers"), and every name of a
    repository of timm's. None without one.
    """
    folder, file = os.path.split(os.path.abspath(path))
    folders = folder.split(os.sep)
    for part in (file, folders[-1]):
        if name := _name_in(part.split(".")[0].lower()):
            return name
    repository = next((f for f in reversed(folders) if f.startswith("models--")), "")
    owner, name = (*repository.split("--")[1:], "", "")[:2]
    return known_name(name) if owner == "timm" else _name_in(name.split(".")[0].lower())


def _name_in(text):
    text = re.sub(_DEIT3, r"deit3_\1_patch16_\2", text)
    match = re.search(_IN_PATH, known_name(text))
    if match is None:
        return None
    begin = [name for name in SIZES if re.match(f"{name}(?![a-z0-9])", match[0])]
    begin = max(begin, key=len, default=None)
    rest = match[0].removeprefix(begin or "")
    return match[0] if difference(rest) else begin


def facts(name: str) -> dict[str, Any]:
    """Arguments of `VisionTransformer` of a known name, without the number of heads."""
    if name in timm_eva_names.NAMES:
        return timm_eva_names.facts(name)
    arguments: dict[str, Any] = {
        "mlp": "gelu",
        "gelu_approximate": bool(re.search(_TANH, name)),
    }
    if "quickgelu" in name:
        arguments["mlp"] = "quick_gelu"
    elif SIZES.get(name) == (1536, 24):  # DINOv2's giant and TIPSv2's
        arguments["mlp"] = "swiglu"
    arguments["layer_norm_epsilon"] = 1e-5 if "_clip_" in name else 1e-6
    arguments["norm_after"] = "_rpn_" in name
    if name.startswith("naflexvit") and "siglip" in name:
        arguments |= {"gelu_approximate": True, "position_interpolation": "bilinear"}
    return arguments


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer in a `config.json`."""
    return {**config, **(config.get("model_args") or {})}
