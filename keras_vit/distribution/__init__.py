"""One model on all accelerators of a machine."""

from keras_vit.distribution.checks import check
from keras_vit.distribution.layouts import ShardedWeights
from keras_vit.distribution.replicas import (
    check_batches,
    check_gradient_accumulation,
    pads_batches,
    sum_over_replicas,
)
from keras_vit.distribution.strategies import (
    STRATEGIES,
    auto,
    data_parallel,
    fully_sharded,
    mirrored,
    strategy,
    tensor_parallel,
    tpu,
)

__all__ = [
    "STRATEGIES",
    "ShardedWeights",
    "auto",
    "check",
    "check_batches",
    "check_gradient_accumulation",
    "data_parallel",
    "fully_sharded",
    "mirrored",
    "pads_batches",
    "strategy",
    "sum_over_replicas",
    "tensor_parallel",
    "tpu",
]
