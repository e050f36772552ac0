"""One model on all accelerators of a machine."""

from keras_vit.distribution.replicas import (
    check_batches,
    check_gradient_accumulation,
    check_processes,
    own_rows,
    sum_over_replicas,
)
from keras_vit.distribution.strategies import STRATEGIES, strategy
from keras_vit.distribution.torch_processes import (
    is_first_process,
    num_processes,
    process_index,
)

__all__ = [
    "STRATEGIES",
    "check_batches",
    "check_gradient_accumulation",
    "check_processes",
    "is_first_process",
    "num_processes",
    "own_rows",
    "process_index",
    "strategy",
    "sum_over_replicas",
]
