"""A checkpoint of a masked autoencoder: an encoder, and the decoder beside it."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import keras

from keras_vit.weight_paths import named_weights
from keras_vit.weights.architecture import METADATA_KEY
from keras_vit.weights.checkpoint import Checkpoint
from keras_vit.weights.files.tensor_file import parse_json
from keras_vit.weights.layouts.mae import CONFIG_NAMES, DECODER, MASK_TOKEN, WITH_DECODER
from keras_vit.weights.layouts.moves import Dims
from keras_vit.weights.resolve import (
    CONFIG,
    METADATA,
    MODEL,
    OVERRIDES,
    PUBLISHED,
    Resolver,
    Undecided,
)
from keras_vit.weights.vit_in_file import ViTInFile

DECODER_KEY = f"{METADATA_KEY}.decoder"  # of the metadata of our own .safetensors files
_WIDTH, _HEADS = 512, 16  # of every published decoder
# Arguments of the model that shapes do not tell, their defaults in transformers, and
# whether a value is possible.
UNTOLD = {"decoder_num_heads": _HEADS, "mask_ratio": 0.75, "norm_pix_loss": False}
_POSSIBLE = {
    "decoder_num_heads": lambda value: type(value) is int and value > 0,
    "mask_ratio": lambda value: isinstance(value, int | float) and 0 <= value < 1,
    "norm_pix_loss": lambda value: isinstance(value, bool),
}


def has_decoder(model: keras.Model) -> bool:
    """True for a masked autoencoder."""
    return any(path == MASK_TOKEN for path, _ in named_weights(model))


class MaskedCheckpoint(Checkpoint):
    """A file of a masked autoencoder.

    Args:
        path: see `Checkpoint`.
        decoder: arguments of `MaskedAutoencoder` that the caller gives.
        model: see `Checkpoint`; also the model's `decoder_num_heads`.
        **options: see `Checkpoint`.

    Raises:
        ValueError: as `Checkpoint` does, or if the file has no such decoder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        decoder: Mapping[str, Any] = {},
        model: Mapping[str, Any] = {},
        **options: Any,
    ):
        super().__init__(path, model=model, **options)
        if MASK_TOKEN not in self.tensors.variables:
            raise ValueError(
                f"{self.source!r} has no decoder of a masked autoencoder: no tensor of it "
                f"becomes {MASK_TOKEN!r}. `keras_vit.from_pretrained` reads an encoder "
                "alone; `MaskedAutoencoder(encoder)` gives it a new decoder."
            )
        given = {name: value for name, value in decoder.items() if value is not None}
        sources = ((OVERRIDES, given), *self._decoder_sources_of_file())
        self._decoder_sources = (*sources, (MODEL, model), (PUBLISHED, self._published()))

    def _find(self, subtree: str | None, key: str | None) -> ViTInFile:
        vit = super()._find(subtree, key)
        for encoder, layout in WITH_DECODER:
            if vit.layout is encoder:
                return vit._replace(layout=layout)
        return vit

    def _decoder_sources_of_file(self):
        config = self._config or {}
        theirs = {name: config.get(CONFIG_NAMES[name]) for name in UNTOLD}
        theirs = {name: value for name, value in theirs.items() if value is not None}
        try:
            metadata = parse_json(self.file.metadata.get(DECODER_KEY, "{}"))
            for name, value in (*metadata.items(), *theirs.items()):
                if name not in _POSSIBLE or not _POSSIBLE[name](value):
                    raise ValueError(f"{name}={value!r} is no possible argument")
        except (AttributeError, ValueError) as error:
            raise self._damaged_config(error) from error
        defaults = UNTOLD if config.get("model_type") == "vit_mae" else {}
        yield METADATA, metadata
        yield CONFIG, theirs
        yield "the defaults of its class in transformers", defaults

    def _published(self):
        """The number of heads of the published decoders, if this one is as wide."""
        width = (self.tensors.source_shape(MASK_TOKEN) or (0,))[-1]
        heads = _HEADS
        if width != _WIDTH:
            heads = Undecided(f"its decoder is {width} wide, published ones {_WIDTH}")
        return {"decoder_num_heads": heads}

    @cached_property
    def _dims(self) -> Dims:
        resolver = Resolver(*self._decoder_sources)
        resolver.check(self.source)
        heads = resolver.value("decoder_num_heads")
        return super()._dims._replace(decoder_num_heads=heads)

    def decoder(self) -> dict[str, Any]:
        """The arguments of `MaskedAutoencoder` but the encoder.

        Raises:
            ValueError: if the file has lost blocks, or no source tells an argument.
        """
        reason = "published models differ in it, and only the loss reads it"
        last = {"mask_ratio": 0.75, "norm_pix_loss": Undecided(reason)}
        resolver = Resolver(*self._decoder_sources, ("published models", last))
        resolver.check(self.source)
        block = rf"{DECODER}block_\d+/attention_norm/gamma"
        num_layers = sum(bool(re.fullmatch(block, path)) for path in self.shapes)
        key = CONFIG_NAMES["decoder_num_layers"]
        self._compare_depth(key, (self._config or {}).get(key), num_layers)
        return {
            "decoder_hidden_dim": self._shape(MASK_TOKEN, 2)[-1],
            "decoder_num_layers": num_layers,
            "decoder_mlp_dim": self._shape(f"{DECODER}block_0/mlp/dense_2/kernel", 2)[0],
            **{name: resolver.value(name) for name in UNTOLD},
        }
