"""Plans of distributed training: compiled, measured and predicted without the hardware."""

from keras_vit.planning.chips import CHIPS, Chip
from keras_vit.planning.collectives import Collective, collectives
from keras_vit.planning.hlo import Program
from keras_vit.planning.plan import CLASSES, Memory, Plan, PlannedObjective, plan
from keras_vit.planning.roofline import Roofline, roofline
from keras_vit.planning.targets import Target, target
from keras_vit.planning.traffic import moved_bytes

__all__ = [
    "CHIPS",
    "CLASSES",
    "Chip",
    "Collective",
    "Memory",
    "Plan",
    "PlannedObjective",
    "Program",
    "Roofline",
    "Target",
    "collectives",
    "moved_bytes",
    "plan",
    "roofline",
    "target",
]
