"""Names of timm's Eva architectures that are computed exactly here, and their arguments.

Eva is timm's class for EVA, EVA-02, DINOv3, Perception Encoder and RoPE-ViT. Most of its
arguments leave no tensor behind.
"""

import re
from collections.abc import Mapping
from typing import Any

# (width, attention heads) → names in the registry of timm 1.0.31.
EXACT = {
    (192, 3): """
        eva02_tiny_patch14_224 eva02_tiny_patch14_336 vit_pe_core_tiny_patch16_384
        vit_pe_spatial_tiny_patch16_512 vit_tiny_patch16_dinov3_qkvb""",
    (384, 6): """
        eva02_small_patch14_224 eva02_small_patch14_336 vit_pe_core_small_patch16_384
        vit_pe_spatial_small_patch16_512 vit_small_patch16_dinov3
        vit_small_patch16_dinov3_qkvb vit_small_patch16_lingbot
        vit_small_patch16_rope_224 vit_small_patch16_rope_ape_224
        vit_small_patch16_rope_mixed_224 vit_small_patch16_rope_mixed_ape_224
        vit_small_plus_patch16_dinov3 vit_small_plus_patch16_dinov3_qkvb""",
    (512, 8): "vit_medium_patch16_rope_reg1_gap_256 vit_mediumd_patch16_rope_reg1_gap_256",
    (640, 10): "vit_betwixt_patch16_rope_reg4_gap_256",
    (768, 12): """
        eva02_base_patch14_224 eva02_base_patch14_448 eva02_base_patch16_clip_224
        vit_base_patch16_dinov3 vit_base_patch16_dinov3_qkvb vit_base_patch16_lingbot
        vit_base_patch16_rope_224 vit_base_patch16_rope_ape_224
        vit_base_patch16_rope_mixed_224 vit_base_patch16_rope_mixed_ape_224
        vit_base_patch16_rope_reg1_gap_256 vit_pe_core_base_patch16_224
        vit_pe_spatial_base_patch16_512""",
    (1024, 16): """
        eva02_large_patch14_224 eva02_large_patch14_448 eva02_large_patch14_clip_224
        eva02_large_patch14_clip_336 vit_large_patch16_dinov3
        vit_large_patch16_dinov3_qkvb vit_large_patch16_lingbot
        vit_large_patch16_rope_224 vit_large_patch16_rope_ape_224
        vit_large_patch16_rope_mixed_224 vit_large_patch16_rope_mixed_ape_224
        vit_pe_core_large_patch14_336 vit_pe_lang_large_patch14_448
        vit_pe_spatial_large_patch14_448""",
    (1280, 20): "vit_huge_plus_patch16_dinov3 vit_huge_plus_patch16_dinov3_qkvb",
    (1408, 16): """
        eva_giant_patch14_224 eva_giant_patch14_336 eva_giant_patch14_560
        eva_giant_patch14_clip_224""",
    (1536, 16): """
        vit_pe_core_gigantic_patch14_448 vit_pe_lang_gigantic_patch14_448
        vit_pe_spatial_gigantic_patch14_448""",
    (1536, 24): "vit_giant_patch16_lingbot",
    (1792, 16): "eva02_enormous_patch14_clip_224",
    (4096, 32): "vit_7b_patch16_dinov3",
}
NAMES = frozenset(name for names in EXACT.values() for name in names.split())

_DINOV3 = "_dinov3|_lingbot"
# Pattern of a name → its rotary positions; the first that matches counts.
_ROPES: tuple[tuple[str, dict[str, Any]], ...] = (
    (_DINOV3, {"kind": "dinov3"}),
    (r"^eva02_(?!enormous)|_rope_reg\d_gap_", {"kind": "cat", "reference_grid": (16, 16)}),
    (r"_rope_mixed_", {"kind": "mixed"}),
    # RoPE-ViT's axial ones: no reference grid.
    (r"_rope_", {"kind": "cat", "indexing": "xy", "temperature": 100.0}),
)
# Perception Encoder's; the reference grid is that of the image in its name.
_PE = r"_pe_(core|lang|spatial)_(\w+)_patch(\d+)_(\d+)$"
_SWIGLU = r"^eva02_(?!enormous)|_(plus|7b)_patch16_dinov3|giant_patch16_lingbot"
_TOKEN = r"_lingbot|_rope_(mixed_)?(ape_)?224|_clip_"  # `global_pool="token"`

# Arguments of Eva → entries of `rope`.
_ENTRIES = {
    "rope_type": "kind",
    "rope_temperature": "temperature",
    "rope_grid_indexing": "indexing",
    "rope_grid_offset": "offset",
    "ref_feat_shape": "reference_grid",
    "rope_rotate_half": "pairs",
}
_DEFAULTS = {"kind": "cat"}  # whose other entries are Eva's defaults


def rope_of(name: str | None, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The rotary positions of an Eva, `None` without.

    Args:
        name: name of the architecture, or `None`.
        arguments: arguments of the class, which come before those of the architecture.
    """
    rope = None
    if name in NAMES:
        rope = next((rope for pattern, rope in _ROPES if re.search(pattern, name)), None)
        if match := re.search(_PE, name):
            side = int(match[4]) // int(match[3])
            rope = {"kind": "cat", "indexing": "xy", "reference_grid": (side, side)}
            rope["offset"] = 0.0 if match[2] == "gigantic" else 1.0
    if not arguments.get("use_rot_pos_emb", rope is not None):
        return None
    rope = dict(rope or _DEFAULTS)
    for theirs, ours in _ENTRIES.items():
        if (value := arguments.get(theirs)) is not None:
            rope[ours] = value
    if isinstance(rope.get("pairs"), bool):
        rope["pairs"] = "halves" if rope["pairs"] else "neighbours"
    return rope


def facts(name: str) -> dict[str, Any]:
    """Arguments of `VisionTransformer` of a known name, without the number of heads."""
    arguments: dict[str, Any] = {
        "mlp": "swiglu" if re.search(_SWIGLU, name) else "gelu",
        "gelu_approximate": False,
        "layer_norm_epsilon": 1e-5 if re.search(_DINOV3, name) else 1e-6,
        "pooling": "token" if re.search(_TOKEN, name) else "gap",
    }
    if "enormous" in name:
        arguments["norm_after"] = True
    if match := re.search(_PE, name):
        arguments["layer_norm_epsilon"] = 1e-5
        if match[1] == "core":
            has_token = match[2] != "gigantic"
            arguments |= {"pooling": "map", "pooling_num_heads": 8}
            arguments["pooling_prefix"] = has_token
        else:
            arguments["final_norm"] = False
    if rope := rope_of(name, {}):
        arguments["rope"] = rope
    return arguments
