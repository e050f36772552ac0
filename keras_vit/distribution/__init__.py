"""Training of one model on several devices or processes."""

from collections.abc import Callable
from typing import Any

from keras_vit import deprecated
from keras_vit.distribution.checks import check
from keras_vit.distribution.jax_distributions import gather_weights
from keras_vit.distribution.jax_processes import initialize
from keras_vit.distribution.processes import (
    barrier,
    is_first_process,
    num_processes,
    process_index,
)
from keras_vit.distribution.strategies import (
    auto,
    data_parallel,
    fully_sharded,
    mirrored,
    strategy,
    tensor_parallel,
    tpu,
)
from keras_vit.distribution.torch_training import TorchProcesses

__all__ = [
    "TorchProcesses",
    "auto",
    "barrier",
    "check",
    "data_parallel",
    "fully_sharded",
    "gather_weights",
    "initialize",
    "is_first_process",
    "mirrored",
    "num_processes",
    "process_index",
    "strategy",
    "tensor_parallel",
    "tpu",
]
_OLD_NAMES = {
    "STRATEGIES": "strategies.STRATEGIES",
    "ShardedWeights": "layouts.ShardedWeights",
    "check_batches": "checks.check_batches",
    "check_gradient_accumulation": "checks.check_gradient_accumulation",
    "check_processes": "checks.check_processes",
    "clip_over_replicas": "replicas.clip_over_replicas",
    "is_asked_for": "jax_processes.environment_has_processes",
    "own_rows": "batch_rows.process_rows",
    "pads_batches": "checks.needs_padding",
    "whole_weights": "gather_weights",
}
__getattr__: Callable[[str], Any] = deprecated.module_getattr(
    __name__, {old: f"{__name__}.{new}" for old, new in _OLD_NAMES.items()}
)
