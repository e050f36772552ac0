"""The arguments of a checkpoint's model: one ordered list of sources, the first one counts.

The order: names and shapes of the tensors, the caller's overrides, the preset, values of
tensors, the metadata of our own files, `config.json`, the architecture that it or the path
names, the defaults of the class that it names, the model to be loaded and published models
of the size (for the number of heads and the grid of positions), the defaults of the layout.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_vit.models.sizes import AIMV2_SIZES, DINOV3_SIZES, SIZES

SHAPES = "names and shapes"
TENSORS = "the tensors"
POSITION_GRID = "position_grid"
OVERRIDES = "the overrides"
METADATA = "the file's metadata"
CONFIG = "config.json"
MODEL = "the model"
PUBLISHED = "published models of this size"
HEAD_SIZE = 64  # channels of an attention head in most published models


class Undecided(NamedTuple):
    """A value that a source cannot tell, for a reason; a later source may."""

    reason: str


class Resolver:
    """Arguments of a model, each with the value and the name of the first source for it.

    Args:
        *sources: (name of the source, arguments) in order. A value may be `Undecided`.
    """

    def __init__(self, *sources: tuple[str, Mapping[str, Any]]):
        self._found: dict[str, tuple[object, str]] = {}
        self._reasons: dict[str, str] = {}
        for origin, arguments in sources:
            for name, value in arguments.items():
                if isinstance(value, Undecided):
                    self._reasons.setdefault(name, value.reason)
                else:
                    self._found.setdefault(name, (value, origin))

    def value(self, name: str, default: Any = None) -> Any:
        """The value of an argument, or the default where no source tells it."""
        return self._found.get(name, (default,))[0]

    def origin(self, name: str) -> str | None:
        """The name of the source of a value, or None where no source tells it."""
        return self._found.get(name, (None, None))[1]

    def values(self) -> dict[str, Any]:
        """Argument → value, of all that some source tells."""
        return {name: value for name, (value, _) in self._found.items()}

    def undecided(self) -> dict[str, str]:
        """Argument → reason, of all that a source leaves undecided and none tells."""
        return {name: r for name, r in self._reasons.items() if name not in self._found}

    def check(self, checkpoint: str) -> None:
        """Raises a ValueError that names every undecided argument of a checkpoint."""
        if not (undecided := self.undecided()):
            return
        reasons = "; ".join(f"`{name}`: {text}" for name, text in undecided.items())
        arguments = ", ".join(f"`{name}=…`" for name in undecided)
        raise ValueError(
            f"{checkpoint!r} does not tell {reasons}. Give {arguments}, or put the model's "
            "config.json beside the file."
        )


def published_heads(
    hidden_dim: int, num_layers: int, mlp_dim: int, pooled_patches: bool
) -> int | Undecided:
    """The number of attention heads of the published models of a size.

    Without such a model a head has 64 channels. Undecided if published models differ, or
    64 does not divide the width. `pooled_patches` is True for a model without class token
    that pools the mean of the patches after the last norm.
    """
    others = (*DINOV3_SIZES, *AIMV2_SIZES)  # whose layouts tell their heads
    rows = [tuple(row.values()) for name, row in SIZES.items() if name not in others]
    rows += [(64, 6, 2, 192), (64, 8, 2, 192)]  # timm's test_vit and test_vit2
    if pooled_patches:
        rows.append((768, 12, 16, 3072))  # timm's vit_base_patch16_gap_224
    alike = [row for row in rows if row[:2] == (hidden_dim, num_layers)]
    alike = [row for row in alike if row[3] == mlp_dim] or alike
    answers = sorted({row[2] for row in alike})
    if len(answers) > 1:
        return Undecided(
            f"published models of its size ({hidden_dim} channels, {num_layers} blocks) "
            f"have {' or '.join(map(str, answers))}"
        )
    if not answers and hidden_dim % HEAD_SIZE:
        return Undecided(
            f"its width of {hidden_dim} is not divisible by the usual head size of "
            f"{HEAD_SIZE}"
        )
    return answers[0] if answers else hidden_dim // HEAD_SIZE
