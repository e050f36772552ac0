"""The training step of `fit`, traced and compiled for devices that may be absent."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_vit.distribution import check, strategy
from keras_vit.distribution.checks import check_batches
from keras_vit.keras_internals.jax_state import lowered_train_step
from keras_vit.keras_internals.symbolic_build import symbolic_build
from keras_vit.keras_internals.variable_values import (
    raw_dtype,
    raw_value,
    set_raw_value,
    sharding,
)
from keras_vit.planning.chips import Chip
from keras_vit.planning.targets import Target
from keras_vit.pretraining.self_supervision import SelfSupervision
from keras_vit.training.finetune import metrics
from keras_vit.training.recipe import Recipe

if TYPE_CHECKING:
    import jax

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class TracedStep:
    """A training step that can be compiled; none of its variables has a value in memory.

    Attributes:
        model: compiled with a recipe. Its variables hold shape, dtype and sharding in place
            of values.
        lowered: `jax.stages.Lowered`, the step of `fit`.
        mesh: sizes of the axes of the device mesh by name.
    """

    model: keras.Model
    lowered: jax.stages.Lowered
    mesh: dict[str, int]


@dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
        executable: `jax.stages.Compiled`.
        text: its HLO, for one device.
    """

    executable: jax.stages.Compiled
    text: str


@dataclass(frozen=True)
class OutOfMemory:
    """Refusal of a compiler: the program does not fit into memory.

    Attributes:
        bytes: memory that the program needs; `None` where the compiler does not say.
        is_all: `True` if `bytes` is all memory, `False` if it is the temporaries alone.
        message: first line of the compiler's message.
    """

    bytes: int | None
    is_all: bool
    message: str


def lower(
    build: Callable[[], keras.Model],
    recipe: Recipe,
    target: Target,
    strategy_name: str,
    batch_size: int,
) -> TracedStep:
    """Traces the step that `finetune` or `pretrain` of `keras_vit.training` runs in `fit`.

    Model, optimizer and metrics are built while JAX traces, so their values are never
    computed. Shapes and layouts stand in for the values.

    Args:
        build: returns a new model with a head, or one of `keras_vit.pretraining`.
        recipe: prepares and compiles the model.
        target: devices to compile for.
        strategy_name: see `keras_vit.distribution.strategy`.
        batch_size: images of a step, on all devices together.

    Raises:
        ValueError: if strategy, model, batch and devices do not fit together.
    """
    import jax

    # Create Keras' global generator now: created within a trace it would keep a tracer.
    keras.random.randint((), 0, 2)
    made = []

    def make():
        made.append(_compiled(build(), recipe, batch_size))
        return 0

    with strategy(strategy_name, target.devices):
        distribution = keras.distribution.distribution()
        if distribution is None and len(target.devices) > 1:
            raise ValueError(
                f"The strategy {strategy_name!r} uses one device. Received: {target.name}"
            )
        check_batches(batch_size)
        jax.eval_shape(make)
        (model,) = made
        alone = jax.sharding.SingleDeviceSharding(target.devices[0])
        for variable in state_variables(model):
            place = sharding(variable) if distribution else alone
            shape, dtype = variable.shape, raw_dtype(variable)
            set_raw_value(variable, jax.ShapeDtypeStruct(shape, dtype, sharding=place))
        check(model)
        batch = keras.tree.map_structure(
            lambda one: jax.ShapeDtypeStruct(
                one.shape,
                one.dtype,
                sharding=distribution.get_data_layout(one.shape).backend_layout
                if distribution
                else alone,
            ),
            symbolic_batch(model, batch_size),
        )
        lowered = lowered_train_step(model, batch)
    mesh = distribution.device_mesh if distribution else None
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True)) if mesh else {}
    return TracedStep(model, lowered, sizes)


def _compiled(model, recipe, batch_size):
    """Compiles a model as the training does, and builds all variables that `fit` builds."""
    if learns_without_labels(model):
        recipe.prepare(model.encoder)
        model.compile(optimizer=recipe.optimizer(model))
    else:
        recipe.prepare(model)
        model.compile(
            optimizer=recipe.optimizer(model),
            loss=recipe.loss_function(model),
            weighted_metrics=metrics(model.output_shape[-1]),
        )
    symbolic_build(model, symbolic_batch(model, batch_size), "The plan of a training")
    return model


def learns_without_labels(model: keras.Model) -> bool:
    """True for a model of `keras_vit.pretraining`, which has a loss of its own."""
    return isinstance(model, SelfSupervision)


def symbolic_batch(model: keras.Model, batch_size: int) -> tuple[Any, keras.KerasTensor]:
    """A batch of a training, as tensors without values: images (or views) and labels."""
    if learns_without_labels(model):
        images = model.symbolic_inputs()
        labels = keras.KerasTensor((batch_size,), "int32")  # which nothing reads
    else:
        images = keras.KerasTensor((None, *model.input_shape[1:]))
        labels = keras.KerasTensor((batch_size, model.output_shape[-1]))
    images = keras.tree.map_structure(
        lambda one: keras.KerasTensor((batch_size, *one.shape[1:])), images
    )
    return images, labels


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all variables of a training, each once."""
    variables = [
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    ]
    return list({id(variable): variable for variable in variables}.values())


def bytes_of(variables: list[keras.Variable]) -> int:
    """Returns the bytes on one device of variables that have no values."""
    values = [raw_value(variable) for variable in variables]
    return sum(prod(v.sharding.shard_shape(v.shape)) * v.dtype.itemsize for v in values)


def compile_step(step: TracedStep, chip: Chip | None) -> Compiled | OutOfMemory:
    """Compiles a step; returns `OutOfMemory` if the compiler finds it too large.

    Args:
        step: the traced step.
        chip: the chip to compile for; `None` for the CPU.
    """
    from jax.errors import JaxRuntimeError

    is_tpu = chip is not None and chip.gpu is None
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if is_tpu else None
        if chip and chip.gpu:  # no GPU is present to time kernels on
            options = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
        try:
            executable = step.lowered.compile(compiler_options=options)
        except JaxRuntimeError as error:
            message = str(error)
            if "RESOURCE_EXHAUSTED" not in message:
                raise
            return out_of_memory(message)
        if not is_tpu:
            return Compiled(executable, executable.as_text())
        # `as_text` makes JAX parse the program; JAX 0.10.2 fails on the programs that
        # libtpu 0.0.51 writes for v6e.
        (path,) = Path(folder).glob("*jit_train_step*after_optimizations.txt")
        return Compiled(executable, path.read_text("utf-8"))


def out_of_memory(message: str) -> OutOfMemory:
    """Parses a compiler's message that a program does not fit."""
    first = next(line for line in message.splitlines() if line.strip())
    patterns = {
        False: r"temporaries \(([\d.]+)([KMG])\) exceeds available HBM",
        True: r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm",
    }
    for is_all, pattern in patterns.items():
        if match := re.search(pattern, message):
            return OutOfMemory(round(float(match[1]) * UNITS[match[2]]), is_all, first)
    return OutOfMemory(None, False, first)
