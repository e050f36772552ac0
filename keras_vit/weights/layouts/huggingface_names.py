"""Names of transformers' models that are computed exactly here, and their defaults."""

from collections.abc import Mapping
from typing import Any

_CLIP = "CLIPModel CLIPVisionModel CLIPVisionModelWithProjection"
_META_CLIP = "MetaClip2Model MetaClip2VisionModel MetaClip2VisionModelWithProjection"
_SIGLIP = "SiglipModel SiglipVisionModel SiglipForImageClassification"
_REGISTERS = "Dinov2WithRegisters"

# `model_type` → classes that `from_pretrained` computes as transformers 5 does.
_EXACT = {
    "vit": "ViTModel ViTForImageClassification ViTForMaskedImageModeling",
    "deit": (
        "DeiTModel DeiTForImageClassification DeiTForImageClassificationWithTeacher "
        "DeiTForMaskedImageModeling"
    ),
    "vit_mae": "ViTMAEModel ViTMAEForPreTraining",
    "vit_msn": "ViTMSNModel ViTMSNForImageClassification",
    "ijepa": "IJepaModel IJepaForImageClassification",
    "beit": "BeitModel BeitForImageClassification",
    "dinov2": "Dinov2Model Dinov2Backbone Dinov2ForImageClassification",
    "dinov2_with_registers": (
        f"{_REGISTERS}Model {_REGISTERS}Backbone {_REGISTERS}ForImageClassification"
    ),
    "aimv2_vision_model": "Aimv2VisionModel",
    "dinov3_vit": "DINOv3ViTModel DINOv3ViTBackbone",
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "chinese_clip": "ChineseCLIPModel ChineseCLIPVisionModel",
    "chinese_clip_vision_model": "ChineseCLIPVisionModel",
    "metaclip_2": _META_CLIP,
    "metaclip_2_vision_model": _META_CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": "Siglip2Model Siglip2VisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
    # A model of timm, named by its `architecture`.
    "timm_wrapper": "TimmWrapperModel TimmWrapperForImageClassification",
}

_UNKNOWN = "which is not known to be computed exactly here"

NUM_HEADS = 12  # of every class above but AIMv2's and DINOv3's
# Other than the layout's.
EPSILONS = {"vit_msn": 1e-6}
# Models of NaFlex, whose positions are resized by bilinear interpolation.
NAFLEX = ("siglip2", "siglip2_vision_model")


def unknown_class(config: Mapping[str, Any]) -> str | None:
    """The reason why the class in a `config.json` may not be exact here, or None."""
    model_type, classes = config.get("model_type"), config.get("architectures") or ()
    if model_type is not None and model_type not in _EXACT:
        return f"config.json has model_type={model_type!r}, {_UNKNOWN}"
    known = (_EXACT.get(model_type) or " ".join(_EXACT.values())).split()
    for name in [classes] if isinstance(classes, str) else classes:
        if name not in known:
            return f"config.json has architectures={name!r}, {_UNKNOWN}"
    return None
