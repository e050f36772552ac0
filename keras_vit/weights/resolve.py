"""Who says what about a checkpoint, in order, and which files only look like a ViT."""

from collections.abc import Iterable, Mapping

from keras_vit.models.sizes import SIZES
from keras_vit.weights.architecture import checked_told
from keras_vit.weights.layouts import huggingface_names, timm_names
from keras_vit.weights.layouts.layout import Layout

SHAPES = "names and shapes"
GIVEN = "given"
MODEL = "the model"
METADATA = "the file's metadata"
CONFIG = "config.json"
PUBLISHED = "published models of this size"
HEAD_SIZE = 64


class Sources:
    """The sources on a model beside names and shapes, in order; the first answer counts.

    Args:
        told: (who, arguments of the model) in order: the caller, the preset, what
            `told_by_file` finds. What nobody says is the layout's default.

    Attributes:
        values: argument → value.
        origins: argument → who says so.
    """

    def __init__(self, told: Iterable[tuple[str, Mapping]]):
        self.values: dict[str, object] = {}
        self.origins: dict[str, str] = {}
        for origin, values in told:
            for key in values.keys() - self.values.keys():
                self.values[key], self.origins[key] = values[key], origin


def told_by_file(
    layout: Layout, metadata: Mapping, config: Mapping | None, path: str, width: int
) -> list[tuple[str, dict]]:
    """(who, arguments) in order: our own metadata, `config.json`, names, their defaults.

    Raises:
        ValueError: if a value cannot be one of its argument.
    """
    hints = layout.hints(config or {})
    hints = {key: value for key, value in hints.items() if value is not None}
    told = [(METADATA, checked_told(metadata)), (CONFIG, checked_told(hints))]
    return told + list(layout.implied(config, path, width))


def usual_heads(source: str, size: tuple[int, int, int], pooled_patches: bool) -> int:
    """The number of heads where no source tells it.

    It is that of the published models of this size; 64 channels a head where none is.

    Args:
        source: the checkpoint, for the error.
        size: width, number of blocks and width of the MLPs.
        pooled_patches: bool, whether there is no class token and the mean of the patches
            is pooled after the last norm.

    Raises:
        ValueError: if published models of this size differ, or 64 is no divisor.
    """
    hidden_dim, num_layers, mlp_dim = size
    rows = [tuple(row.values()) for row in SIZES.values()]
    rows += [(64, 6, 2, 192), (64, 8, 2, 192)]  # timm's test_vit and test_vit2
    if pooled_patches:
        rows.append((768, 12, 16, 3072))  # timm's vit_base_patch16_gap_224
    alike = [row for row in rows if row[:2] == (hidden_dim, num_layers)]
    alike = [row for row in alike if row[3] == mlp_dim] or alike
    answers = sorted({row[2] for row in alike})
    if len(answers) > 1:
        raise ValueError(
            f"{source!r} does not tell the number of attention heads, and published models "
            f"of its size ({hidden_dim} channels, {num_layers} blocks) have "
            f"{' or '.join(map(str, answers))}. Give `num_heads=…`."
        )
    if not answers and hidden_dim % HEAD_SIZE:
        raise ValueError(
            f"{source!r} does not tell the number of attention heads, and its width of "
            f"{hidden_dim} is not divisible by the usual head size of {HEAD_SIZE}. Give "
            "`num_heads=…`."
        )
    return answers[0] if answers else hidden_dim // HEAD_SIZE


def difference(
    layout: Layout,
    config: Mapping | None,
    path: str,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Why a file of these tensors is not known to be what they look like, or None.

    Args:
        layout: of the file.
        config: its `config.json`, if there is one.
        path: of the file; in timm's layout names in it count.
        names: canonical name of a tensor → its name in the file.
        shapes: canonical name of a tensor → its shape.
    """
    config = dict(config or {})
    if reason := named_difference(config):
        return reason
    named = config.get("architecture") or config.get("model_type")
    if layout.names_in_paths and not named and (name := timm_names.name_in_path(path)):
        config["architecture"] = name  # says as much
        if reason := _of_timm(name, "the path"):
            return reason
    return layout.difference(config, names, shapes)


def stated_depth(config: Mapping) -> tuple[str, int | None]:
    """The number of blocks that a `config.json` states, and its key; None without one."""
    parts = [config.get(key) for key in ("vision_config", "model_args", "config")]
    for part in (*parts, config):
        for key in ("num_hidden_layers", "depth", "num_layers"):
            if isinstance(part, Mapping) and isinstance(part.get(key), int):
                return key, part[key]
    return "", None


def named_difference(config: Mapping) -> str | None:
    """Why the model that a `config.json` names is not known to be exact, or None."""
    if architecture := config.get("architecture"):
        return _of_timm(architecture, CONFIG)
    return huggingface_names.difference(config)


def _of_timm(architecture, origin):
    name = timm_names.known_name(str(architecture))
    if timm_names.is_exact(name):
        return None
    reason = timm_names.difference(name) or "it is not known to be computed exactly here"
    return f"{origin} names the architecture {architecture!r}, and {reason}"


def refused(source: str, reason: str) -> ValueError:
    """The error of a file that only looks like a ViT."""
    return ValueError(
        f"{source!r} is not loaded, as it could compute something else than its tensors "
        f"tell: {reason}. If it is a plain ViT all the same, give `plain_vit=True`."
    )
