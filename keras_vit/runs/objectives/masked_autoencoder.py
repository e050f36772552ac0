"""The objective `"masked_autoencoder"` (MAE)."""

from typing import Any

import keras
import numpy as np

from keras_vit.models import VisionTransformer
from keras_vit.pretraining import MaskedAutoencoder
from keras_vit.pretraining.operations import reconstruction_operations
from keras_vit.pretraining.pictures import displayed, reconstructed
from keras_vit.runs.objectives.objective import Objective, Pictures
from keras_vit.training.pretraining_recipes import MAEPreTraining, SmallPreTraining
from keras_vit.training.recipe import Recipe

_WIDTH, _LAYERS = 512, 8  # of the paper's decoder, table 1


def _small_recipe(num_examples: int, **changes: Any) -> SmallPreTraining:
    return SmallPreTraining.for_examples(num_examples, **{"position": "sincos2d"} | changes)


def _arguments(encoder: VisionTransformer, recipe: Recipe, seed: int) -> dict[str, Any]:
    is_small = isinstance(recipe, SmallPreTraining)
    return {"seed": seed, **(_small_decoder(encoder) if is_small else {})}


def _small_decoder(encoder):
    """A decoder no wider than the encoder, of a third of its depth.

    The paper's is made for encoders of 768 and more, and would cost more than a small
    encoder.
    """
    fields = encoder.fields
    width = min(_WIDTH, fields.hidden_dim - fields.hidden_dim % 4)
    divisors = [n for n in range(1, fields.num_heads + 1) if width % n == 0]
    return {
        "decoder_hidden_dim": width,
        "decoder_num_layers": min(_LAYERS, max(1, fields.num_layers // 3)),
        "decoder_num_heads": divisors[-1],
    }


def _pictures(model: keras.Model, images: np.ndarray) -> Pictures:
    masked, reconstruction = reconstructed(model, images)
    shown = (displayed(model.encoder, images), masked, reconstruction)
    note = (
        "Held-out images; the patches that the encoder sees; and the decoder's "
        "reconstruction of the others between them."
    )
    if model.norm_pix_loss:
        note += (
            " The decoder predicts each patch after its own mean is subtracted and its own "
            "deviation divided out. For these pictures both are taken from the true patch."
        )
    return Pictures(
        ("image", "seen", "reconstructed"), list(zip(*shown, strict=True)), note
    )


OBJECTIVE = Objective(
    title="masked autoencoder",
    paper="MAE (arXiv 2111.06377)",
    model=MaskedAutoencoder,
    paper_recipe=MAEPreTraining.for_examples,
    small_recipe=_small_recipe,
    arguments=_arguments,
    operations=reconstruction_operations,
    pictures=_pictures,
)
