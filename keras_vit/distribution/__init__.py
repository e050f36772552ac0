"""One model on several devices."""

from keras_vit.distribution.checks import check
from keras_vit.distribution.jax_processes import initialize, is_asked_for
from keras_vit.distribution.layouts import ShardedWeights
from keras_vit.distribution.parts import whole_weights
from keras_vit.distribution.processes import (
    barrier,
    is_first_process,
    num_processes,
    process_index,
)
from keras_vit.distribution.replicas import (
    check_batches,
    check_gradient_accumulation,
    check_processes,
    clip_over_replicas,
    pads_batches,
)
from keras_vit.distribution.rows import own_rows
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
from keras_vit.distribution.torch_processes import TorchProcesses

__all__ = [
    "STRATEGIES",
    "ShardedWeights",
    "TorchProcesses",
    "auto",
    "barrier",
    "check",
    "check_batches",
    "check_gradient_accumulation",
    "check_processes",
    "clip_over_replicas",
    "data_parallel",
    "fully_sharded",
    "initialize",
    "is_asked_for",
    "is_first_process",
    "mirrored",
    "num_processes",
    "own_rows",
    "pads_batches",
    "process_index",
    "strategy",
    "tensor_parallel",
    "tpu",
    "whole_weights",
]
