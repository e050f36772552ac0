"""Reasons to refuse a file that looks like a ViT and may be another model."""

from collections.abc import Mapping
from typing import Any

from keras_vit.weights.layouts import huggingface_names, timm_names
from keras_vit.weights.layouts.layout import Layout


def reason_to_refuse(
    layout: Layout,
    config: Mapping[str, Any] | None,
    path: str,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    is_told: bool = False,
) -> str | None:
    """The reason why a file may be another model than its tensors look like, or None.

    Args: see `Layout.reason_to_refuse`; the path of a file may name an architecture.
        `is_told` says that its rotary positions, or the places of its norms, are known.
    """
    config = dict(config or {})
    if is_told:
        config["use_rot_pos_emb"] = True  # as timm's config says it
    if reason := unknown_architecture(config):
        return reason
    is_named = config.get("architecture") or config.get("model_type")
    if layout.names_in_paths and not is_named and (name := timm_names.name_in_path(path)):
        config["architecture"] = name
        if reason := _unknown_timm_name(name, "the path"):
            return reason
    return layout.reason_to_refuse(config, names, shapes)


def unknown_architecture(config: Mapping[str, Any]) -> str | None:
    """The reason why the model that a `config.json` names may not be exact, or None."""
    if architecture := config.get("architecture"):
        return _unknown_timm_name(architecture, "config.json")
    return huggingface_names.unknown_class(config)


def _unknown_timm_name(architecture, origin):
    name = timm_names.known_name(str(architecture))
    if timm_names.is_exact(name):
        return None
    reason = timm_names.difference(name) or "it is not known to be computed exactly here"
    return f"{origin} names the architecture {architecture!r}, and {reason}"


def refusal(source: str, reason: str) -> ValueError:
    """The error for a file that may be another model than its tensors look like."""
    return ValueError(
        f"{source!r} is not loaded, as it may be another model than its tensors look like: "
        f"{reason}. If it is a plain ViT, give `plain_vit=True`."
    )


def stated_depth(config: Mapping[str, Any]) -> tuple[str, int | None]:
    """(key, number of blocks) in a `config.json`; ("", None) where it states none."""
    parts = [config.get(key) for key in ("vision_config", "model_args", "config")]
    for part in (*parts, config):
        for key in ("num_hidden_layers", "depth", "num_layers"):
            if isinstance(part, Mapping) and isinstance(part.get(key), int):
                return key, part[key]
    return "", None
