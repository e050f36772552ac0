"""The layout of timm's NaFlexVit, which is only read; VisionTransformer is written."""

from dataclasses import replace

from keras_vit.weights.layouts.layout import POSITIONS, row
from keras_vit.weights.layouts.timm import ROWS, TIMM

TIMM_NAFLEX = replace(
    TIMM,
    rows=(
        *(
            row("embeds.proj.weight", "patch_embedding/kernel", "patches"),
            row("embeds.proj.bias", "patch_embedding/bias"),
            row("embeds.pos_embed", POSITIONS, "grid of positions"),
        ),
        *(r for r in ROWS if not r.sources[0].startswith(("patch_embed.", "pos_embed"))),
    ),
    marks=(r"embeds\.proj\.weight", r"blocks\.\d+\.norm1\..*"),
    aliases=(*TIMM.aliases, (r"^embeds\.(cls_token|reg_token)$", r"\1")),
)
