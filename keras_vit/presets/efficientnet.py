"""Checkpoints of EfficientNet-L2 by *Noisy Student*, the ViT paper's other baseline.

Sources: `efficientnet.py` and `results-imagenet.csv` of huggingface/pytorch-image-models
(timm: resolution, crop, score), as recorded in November 2026. The original files are
TensorFlow's; timm's hold the same weights.
"""

from keras_vit.presets.google import CLASSES_1K, TIMM_RESULTS
from keras_vit.presets.preset import Preprocessing, Preset

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PRESETS = [
    Preset(
        architecture="EfficientNetL2",
        tag=tag,
        family="Noisy Student",
        addresses=(f"hf://timm/tf_efficientnet_l2.{name}",),
        resolution=resolution,
        classes=CLASSES_1K,
        preprocessing=Preprocessing(
            mean=_MEAN, std=_STD, crop_fraction=crop_fraction, interpolation="bicubic"
        ),
        license="Apache-2.0",
        paper="Self-training with Noisy Student improves ImageNet classification "
        "(arXiv 1911.04252)",
        accuracy=accuracy,
        accuracy_source=TIMM_RESULTS,
    )
    for tag, name, resolution, crop_fraction, accuracy in [
        ("noisy_student", "ns_jft_in1k", 800, 0.96, 88.362),
        ("noisy_student-475", "ns_jft_in1k_475", 475, 0.936, 88.250),
    ]
]
