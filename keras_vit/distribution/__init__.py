"""One model on all accelerators of a machine."""

from keras_vit.distribution.replicas import (
    check_batches,
    check_gradient_accumulation,
    sum_over_replicas,
)
from keras_vit.distribution.strategies import STRATEGIES, strategy

__all__ = [
    "STRATEGIES",
    "check_batches",
    "check_gradient_accumulation",
    "strategy",
    "sum_over_replicas",
]
