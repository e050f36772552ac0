"""The layouts of masked autoencoders (MAE): an encoder's table, and that of the decoder."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras_vit.weights.layouts.huggingface import VIT
from keras_vit.weights.layouts.layout import (
    TensorRow,
    demand,
    norm,
    row,
    weight_and_bias,
)
from keras_vit.weights.layouts.timm import TIMM

DECODER = "decoder/"
MASK_TOKEN = f"{DECODER}mask_token"
DECODER_POSITIONS = tuple(f"{DECODER}position_embedding/{n}" for n in ("prefix", "grid"))
# Names of both layouts after a prefix: transformers' has another before the mask token.
_WIDTHS = (
    *weight_and_bias("decoder_embed", f"{DECODER}embedding", "transpose"),
    row("decoder_pos_embed", DECODER_POSITIONS, "positions"),
    *norm("decoder_norm", f"{DECODER}norm"),
    *weight_and_bias("decoder_pred", f"{DECODER}prediction", "transpose"),
    row("mask_token", MASK_TOKEN, "drop first axis"),
)


def _rows(
    rows: tuple[TensorRow, ...], plain: str, blocks: str, decoder: str, prefix: str
) -> tuple[TensorRow, ...]:
    """The table of a masked autoencoder, from that of its encoder.

    Args:
        rows: the table of the encoder's family.
        plain: pattern of the sources that a plain encoder has.
        blocks: beginning of the names of the encoder's blocks.
        decoder: the same of the decoder's.
        prefix: beginning of the decoder's other names.
    """
    rows = tuple(each for each in rows if re.fullmatch(plain, each.sources[0]))
    in_blocks = (each for each in rows if each.sources[0].startswith(blocks))
    return (
        *rows,
        *(
            each._replace(
                sources=tuple(name.replace(blocks, decoder, 1) for name in each.sources),
                targets=tuple(f"{DECODER}{path}" for path in each.targets),
            )
            for each in in_blocks
        ),
        *(each._replace(sources=(f"{prefix}{each.sources[0]}",)) for each in _WIDTHS),
    )


_ONE_TOKEN = {
    "dropped": {},
    "num_prefix": lambda shapes: (1,),
    "written_prefix": lambda class_token, registers: (1,),
}

# facebookresearch/mae, whose encoder is timm's.
MAE = replace(
    TIMM,
    name="mae",
    rows=_rows(
        TIMM.rows,
        r"(patch_embed\.proj|blocks\.\{i\}\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])|norm)"
        r"\.(weight|bias)|cls_token|pos_embed",
        blocks="blocks.",
        decoder="decoder_blocks.",
        prefix="",
    ),
    **_ONE_TOKEN,
)

_LAYERS = r"decoder\.decoder_layers\.\d+"

# transformers' ViTMAEForPreTraining.
HF_MAE = replace(
    VIT,
    name="huggingface mae",
    rows=_rows(
        VIT.rows,
        r"embeddings\.(cls_token|position_embeddings|patch_embeddings\..*)"
        r"|layers\..*|layernorm\.(weight|bias)",
        blocks="layers.",
        decoder="decoder.decoder_layers.",
        prefix="decoder.",
    ),
    aliases=(
        *VIT.aliases,
        # As transformers 5.24 writes them.
        (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
        (rf"^({_LAYERS})\.output\.dense\.", r"\1.mlp.fc2."),
    ),
    written_names=(*VIT.written_names, (r"^(?!decoder\.)", "vit.")),
    **_ONE_TOKEN,
)

# The layout of an encoder alone, and that of the same names with a decoder.
WITH_DECODER = ((TIMM, MAE), (VIT, HF_MAE))


_WAY_OUT = "Save the model by `model.save`, or its `.encoder` alone"


def check_mae(config: Mapping[str, Any]) -> None:
    """Refuses an encoder that the published code of MAE cannot have.

    Raises:
        ValueError: naming the argument.
    """
    demand(
        config,
        "files of masked autoencoders",
        _WAY_OUT,
        class_token=config["class_token"],
        rope=config["rope"] is None,
        mlp=config["mlp"] == "gelu",
        qkv_bias=config["qkv_bias"] is True,
        mlp_bias=config["mlp_bias"],
        projection_bias=config["projection_bias"],
        patch_bias=config["patch_bias"],
        norm=config["norm"] == "layer",
        norm_after=not config["norm_after"],
        final_norm=config["final_norm"],
    )


def mae_config(config: Mapping[str, Any], decoder: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of transformers' `config.json` that are MAE's alone.

    Args:
        config: config of the encoder.
        decoder: arguments of the decoder and of the loss, see `MaskedAutoencoder`.

    Raises:
        ValueError: if the images are not square, which transformers' decoder takes alone.
    """
    sizes = (config["image_size"], config["patch_size"])
    is_square = all(height == width for height, width in sizes)
    demand(config, "transformers' ViTMAE", _WAY_OUT, image_size=is_square)
    return {
        "intermediate_size": config["mlp_dim"],
        "qkv_bias": config["qkv_bias"],
        "hidden_dropout_prob": config["dropout_rate"],
        "attention_probs_dropout_prob": config["attention_dropout_rate"],
        **{theirs: decoder[ours] for ours, theirs in CONFIG_NAMES.items()},
    }


# Our argument → the field of transformers' config.
CONFIG_NAMES = {
    "decoder_hidden_dim": "decoder_hidden_size",
    "decoder_num_layers": "decoder_num_hidden_layers",
    "decoder_num_heads": "decoder_num_attention_heads",
    "decoder_mlp_dim": "decoder_intermediate_size",
    "mask_ratio": "mask_ratio",
    "norm_pix_loss": "norm_pix_loss",
}
