"""Multiply-accumulates of a training step of a model that learns without labels."""

import itertools
from collections.abc import Mapping
from typing import Any

from keras_vit.cost import cost
from keras_vit.pretraining.masked_autoencoder import MaskedAutoencoder
from keras_vit.pretraining.masked_patch_prediction import MaskedPatchPrediction
from keras_vit.pretraining.self_distillation import GLOBAL_VIEWS, SelfDistillation

STEP = 3  # passes of a step: forward, and two as long for the gradients
_EMBEDDING = "patch_embedding"
_EVERY_TOKEN = {"pooling": None, "classes": 0, "representation_size": None}


def reconstruction_operations(model: MaskedAutoencoder) -> int:
    """Multiply-accumulates of a step of a masked autoencoder for one image.

    The encoder embeds all patches, and its blocks compute those that are kept; the decoder
    computes a token of each patch (MAE, arXiv 2111.06377, section 3). Left out are the same
    operations as in `keras_vit.cost`.
    """
    encoder, decoder = model.encoder, model.decoder
    height, width = encoder.fields.patch_size
    # As many patches as are kept, in a row.
    kept = _blocks(encoder.get_config(), (height, width * model.num_kept))
    prefix, patches = decoder.num_prefix, model.num_patches
    entry = (prefix + model.num_kept) * encoder.fields.hidden_dim * decoder.hidden_dim
    sizes = {
        "hidden_dim": decoder.hidden_dim,
        "num_layers": decoder.num_layers,
        "num_heads": decoder.num_heads,
        "mlp_dim": decoder.mlp_dim,
        "merged_tokens": 0,
    }
    same = ("image_size", "patch_size", "class_token", "num_registers", "distilled")
    own = {name: getattr(encoder.fields, name) for name in same}
    blocks = _blocks({**own, **sizes}, None)
    prediction = patches * decoder.hidden_dim * decoder.num_pixels
    return STEP * (_embedding(encoder) + kept + entry + blocks + prediction)


def color_operations(model: MaskedPatchPrediction) -> int:
    """Multiply-accumulates of a step of masked patch prediction for one image.

    Every block computes every token (ViT, arXiv 2010.11929, appendix B.1.2), and a linear
    layer predicts the corrupted ones.
    """
    encoder = model.encoder
    outputs = model.prediction.kernel.shape[-1]
    prediction = model.num_corrupted * encoder.fields.hidden_dim * outputs
    return STEP * (_embedding(encoder) + _blocks(encoder.get_config(), None) + prediction)


def distillation_operations(model: SelfDistillation) -> int:
    """Multiply-accumulates of a step of self-distillation for one image.

    The student computes every view, with gradients; the teacher the two global ones,
    without (DINO, arXiv 2104.14294, section 3.1).
    """
    encoder, head = model.encoder, model.projection_head
    widths = (encoder.fields.hidden_dim, *[head.hidden_dim] * 2, head.bottleneck_dim)
    if encoder.fields.pooling == "token_gap":
        widths = (2 * widths[0], *widths[1:])
    projection = sum(a * b for a, b in itertools.pairwise((*widths, head.output_dim)))
    config = encoder.get_config()
    global_views = GLOBAL_VIEWS * (_view(config, None) + projection)
    local_views = model.num_local_views * (
        _view(config, model.local_image_size) + projection
    )
    return STEP * (global_views + local_views) + global_views


def _view(config, image_size) -> int:
    return cost({**config, "classes": 0}, image_size=image_size).multiply_accumulates


def _parts(config: Mapping[str, Any], image_size) -> Mapping[str, int]:
    found = cost({**config, **_EVERY_TOKEN}, image_size=image_size)
    return found.multiply_accumulates_by_part


def _embedding(encoder) -> int:
    return _parts(encoder.get_config(), None)[_EMBEDDING]


def _blocks(config, image_size) -> int:
    """All but the embedding of the patches, for which no token is missing."""
    parts = _parts(config, image_size)
    return sum(number for part, number in parts.items() if part != _EMBEDDING)
