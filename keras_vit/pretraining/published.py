"""Masked autoencoders from published files."""

import os
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from keras_vit.layers.initial_values import waiting_for_values
from keras_vit.models import VisionTransformer
from keras_vit.models.config_overrides import (
    apply_overrides,
    asked_image_size,
    check_overrides,
)
from keras_vit.weights.load import assign
from keras_vit.weights.masked_checkpoint import UNTOLD, MaskedCheckpoint
from keras_vit.zoo.pretrained import caller_arguments, locate, preset_arguments


def read_masked(
    source: str | os.PathLike[str],
    make: Callable[..., Any],
    overrides: Mapping[str, Any],
    **reading: Any,
) -> Any:
    """Builds the masked autoencoder of a file, see `MaskedAutoencoder.from_pretrained`.

    Args:
        source: name of a preset, address or path.
        make: the class of the model.
        overrides: its arguments, and those of its encoder.
        **reading: `key` and `position_grid` of `keras_vit.from_pretrained`.
    """
    names = {*UNTOLD, "seed", "name", "trainable"}
    own = {name: value for name, value in overrides.items() if name in names}
    others = {name: value for name, value in overrides.items() if name not in names}
    if told := sorted({*signature(make).parameters} & {*others} - {"dtype"}):
        raise ValueError(
            "The checkpoint tells the sizes of its decoder. Received: "
            f"{', '.join(f'{name}={others[name]!r}' for name in told)}. Leave them out."
        )
    check_overrides(VisionTransformer, others)
    path, preset = locate(source)
    with MaskedCheckpoint(
        path,
        decoder={name: own[name] for name in UNTOLD if name in own},
        overrides=caller_arguments(others),
        preset=preset_arguments(preset),
        model={"image_size": asked_image_size(others)},
        **reading,
    ) as checkpoint:
        config, decoder = checkpoint.architecture(), checkpoint.decoder()
        config |= checkpoint.notes(0)
        with waiting_for_values():
            try:
                encoder = VisionTransformer(**apply_overrides(config, others))
                model = make(encoder, **{**decoder, **own})
            except ValueError as error:
                raise ValueError(f"No model can be built from {path!r}: {error}") from error
        assign(model, checkpoint, is_new=True)
    encoder.get_layer("position_embedding").trainable = False
    return model
