"""The objective `"masked_patch_prediction"` of the ViT paper."""

from typing import Any

import keras
import numpy as np

from keras_vit.pretraining import MaskedPatchPrediction
from keras_vit.pretraining.operations import color_operations
from keras_vit.pretraining.pictures import colored, displayed
from keras_vit.runs.objectives.objective import Objective, Pictures
from keras_vit.training.pretraining_recipes import MaskedPatchPreTraining, SmallPreTraining
from keras_vit.training.recipes import num_steps


def _paper_recipe(
    num_examples: int, epochs: float | None = None, **changes: Any
) -> MaskedPatchPreTraining:
    """The paper's million steps, whatever the number of images, unless `epochs` say."""
    recipe = MaskedPatchPreTraining()
    if epochs is not None:
        batch_size = changes.get("batch_size", recipe.batch_size)
        changes = {"steps": num_steps(epochs, num_examples, batch_size), **changes}
    return recipe.replace(**changes) if changes else recipe


def _pictures(model: keras.Model, images: np.ndarray) -> Pictures:
    true, predicted = colored(model, images)
    shown = (displayed(model.encoder, images), true, predicted)
    of = "pixels" if model.target == "pixels" else "colours"
    note = (
        f"Held-out images; the true {of} of the patches to predict, the others as they "
        f"are; and the {of} that the model predicts. Most of these patches are hidden from "
        "it, a tenth are another patch of the image, and a tenth are left as they are."
    )
    columns = ("image", f"true {of}", f"predicted {of}")
    return Pictures(columns, list(zip(*shown, strict=True)), note)


OBJECTIVE = Objective(
    title="masked patch prediction",
    paper="ViT (arXiv 2010.11929), appendix B.1.2",
    model=MaskedPatchPrediction,
    paper_recipe=_paper_recipe,
    small_recipe=SmallPreTraining.for_examples,
    curves={"loss": "Loss", "accuracy": "Colours predicted"},
    operations=color_operations,
    pictures=_pictures,
)
