"""Distributed trainings, planned without the hardware."""

from keras_vit.planning.chips import CHIPS, Chip
from keras_vit.planning.collectives import Collective, collectives
from keras_vit.planning.plan import CLASSES, Memory, Plan, plan
from keras_vit.planning.roofline import Roofline, roofline
from keras_vit.planning.targets import Target, target

__all__ = [
    "CHIPS",
    "CLASSES",
    "Chip",
    "Collective",
    "Memory",
    "Plan",
    "Roofline",
    "Target",
    "collectives",
    "plan",
    "roofline",
    "target",
]
