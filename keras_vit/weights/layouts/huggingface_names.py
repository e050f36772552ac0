"""transformers' names of models: which are computed exactly here, and their defaults."""

from collections.abc import Mapping

_CLIP = ("CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection")
_META_CLIP = (
    "MetaClip2Model",
    "MetaClip2VisionModel",
    "MetaClip2VisionModelWithProjection",
)
_SIGLIP = ("SiglipModel", "SiglipVisionModel", "SiglipForImageClassification")

# `model_type` → classes that `from_pretrained` computes as transformers 5 does.
_EXACT = {
    "vit": ("ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling"),
    "deit": ("DeiTModel", "DeiTForImageClassification", "DeiTForMaskedImageModeling"),
    "vit_mae": ("ViTMAEModel", "ViTMAEForPreTraining"),
    "vit_msn": ("ViTMSNModel", "ViTMSNForImageClassification"),
    "ijepa": ("IJepaModel", "IJepaForImageClassification"),
    "dinov2": ("Dinov2Model", "Dinov2Backbone", "Dinov2ForImageClassification"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersBackbone",
        "Dinov2WithRegistersForImageClassification",
    ),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "chinese_clip": ("ChineseCLIPModel", "ChineseCLIPVisionModel"),
    "chinese_clip_vision_model": ("ChineseCLIPVisionModel",),
    "metaclip_2": _META_CLIP,
    "metaclip_2_vision_model": _META_CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    # A model of timm in transformers' hands: timm's `architecture` counts.
    "timm_wrapper": ("TimmWrapperModel", "TimmWrapperForImageClassification"),
}

_UNKNOWN = "which is not known to be computed exactly here"

NUM_HEADS = 12  # of every class above
# What those of one layout have differently.
EPSILONS = {"vit_msn": 1e-6}


def unknown_class(config: Mapping) -> str | None:
    """Why a model of this `config.json` is not known to be computed exactly, or None."""
    model_type, classes = config.get("model_type"), config.get("architectures") or ()
    if model_type is not None and model_type not in _EXACT:
        return f"config.json has model_type={model_type!r}, {_UNKNOWN}"
    known = _EXACT.get(model_type) or {name for names in _EXACT.values() for name in names}
    for name in [classes] if isinstance(classes, str) else classes:
        if name not in known:
            return f"config.json has architectures={name!r}, {_UNKNOWN}"
    return None
