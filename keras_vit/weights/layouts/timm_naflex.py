"""The layout of timm's NaFlexVit."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras_vit.layers.mlp import GATED
from keras_vit.weights.layouts.layout import POSITIONS, demand, row
from keras_vit.weights.layouts.timm import ROWS, TIMM

_OTHERS = ("patch_embedding/", "stem_", "pre_logits/", "distillation_", POSITIONS[0])

TIMM_NAFLEX = replace(
    TIMM,
    name="timm_naflex",
    rows=(
        *(
            row("embeds.proj.weight", "patch_embedding/kernel", "flat patches"),
            row("embeds.proj.bias", "patch_embedding/bias"),
            row("embeds.pos_embed", POSITIONS, "grid of positions"),
        ),
        *(r for r in ROWS if not r.targets[0].startswith(_OTHERS)),
    ),
    marks=(r"embeds\.proj\.weight", r"blocks\.\d+\.norm1\..*"),
    aliases=(*TIMM.aliases, (r"^embeds\.(cls_token|reg_token)$", r"\1")),
    written_names=((r"^(cls_token|reg_token)$", r"embeds.\1"),),
    written_prefix=lambda tokens, registers: (0,),
)


def check_naflex(config: Mapping[str, Any]) -> None:
    """Refuses a model that cannot come back from a file of timm's NaFlexVit.

    Raises:
        ValueError: if it has an argument that such files cannot say.
    """
    demand(
        config,
        "Files of timm's NaFlexVit",
        stem=config["stem"] is None,
        representation_size=not config["representation_size"],
        position=config["position"] != "relative",
        qkv_bias=config["qkv_bias"] != "qv",
        attention_sub_norm=not config["attention_sub_norm"],
        mlp_sub_norm=not config["mlp_sub_norm"],
        mlp=config["mlp"] not in GATED,
        # CLIP's norm before the blocks replaces the bias of the patch embedding.
        patch_bias=config["patch_bias"] != config["pre_norm"],
    )
