"""The layout that timm's Eva and Beit write, with their names of scales."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras_vit.weights.layouts.timm import ROWS, TIMM

TIMM_EVA = replace(
    TIMM,
    rows=tuple(r for r in ROWS if not r.targets[0].startswith(("stem_", "pre_logits"))),
    written_names=((r"\.ls([12])\.gamma$", r".gamma_\1"),),
)


def is_eva(config: Mapping[str, Any]) -> bool:
    """True if timm's class for the model of a config is Eva or Beit."""
    sub_norms = config["attention_sub_norm"] or config["mlp_sub_norm"]
    is_beit = config["position"] == "relative"
    return bool(config["rope"] or sub_norms or is_beit or config["qkv_bias"] == "qv")


def check_eva(config: Mapping[str, Any]) -> None:
    """Refuses a model that timm's Eva or Beit computes otherwise.

    Raises:
        ValueError: if it has an argument that its class lacks.
    """
    is_beit = config["position"] == "relative"
    kind = "Beit" if is_beit else "Eva"
    lacking = ("num_registers", "pre_norm", "qk_norm", "rope") if is_beit else ()
    has_prefix = config["class_token"] or config["num_registers"]
    refused = {
        "rope": (config["rope"] or {}).get("periods") and "it computes the periods",
        "pooling_prefix": config["pooling"] == "map"
        and has_prefix
        and not config["pooling_prefix"]
        and "it pools every token",
        "qkv_bias": is_beit and config["qkv_bias"] is True and "its keys have no bias",
    }
    refused |= {name: config[name] and "it has none" for name in lacking}
    for name, reason in refused.items():
        if reason:
            raise ValueError(
                f"timm's class {kind} has no {name}={config[name]!r}: {reason}. Save the "
                "model by `model.save`, or DINOv3 with layout='meta'."
            )
