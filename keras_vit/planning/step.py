"""The step of a training, as `fit` has it, compiled for devices that need not be here."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import keras

from keras_vit.distribution import check, check_batches, strategy
from keras_vit.planning.chips import Chip
from keras_vit.planning.targets import Target
from keras_vit.training.finetune import metrics
from keras_vit.training.recipe import Recipe

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Step:
    """A step that can be compiled; no number of its state is in memory.

    Attributes:
        model: compiled with a recipe, its variables without values: what they hold tells
            shape, dtype and how they are split.
        lowered: `jax.stages.Lowered`, of the step of `fit`.
        mesh: sizes of the axes of the mesh by their names.
    """

    model: keras.Model
    lowered: object
    mesh: dict[str, int]


@dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
        executable: `jax.stages.Compiled`.
        text: HLO of it, for one of the devices.
    """

    executable: object
    text: str


@dataclass(frozen=True)
class OutOfMemory:
    """What a compiler says of a program that does not fit.

    Attributes:
        bytes: int, that it needs, and `None` where it does not say.
        is_all: bool, whether these are all, or of the temporaries alone.
        message: str, in its words.
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
) -> Step:
    """The step that `keras_vit.training.finetune` has `fit` run, traced.

    Model, optimizer and metrics are made as JAX traces it, so that their values are never
    computed; shapes and layouts stand in for them.

    Args:
        build: gives a new model with a head.
        recipe: `Recipe`, that it is prepared and compiled with.
        target: `Target`.
        strategy_name: see `keras_vit.distribution.strategy`.
        batch_size: int, images of a step, on all devices together.

    Raises:
        ValueError: if strategy, model, batch and devices do not fit together.
    """
    import jax

    # Made here: a generator that is first asked for in a trace would keep a tracer.
    keras.random.randint((), 0, 2)
    made = []

    def make():
        made.append(_compiled(build(), recipe, batch_size))
        return 0

    with strategy(strategy_name, target.devices):
        distribution = keras.distribution.distribution()
        if distribution is None and len(target.devices) > 1:
            raise ValueError(
                f"The strategy {strategy_name!r} is of one device. Received: {target.name}"
            )
        check_batches(batch_size)
        jax.eval_shape(make)
        (model,) = made
        alone = jax.sharding.SingleDeviceSharding(target.devices[0])
        for variable in state_variables(model):
            sharding = variable._layout.backend_layout if distribution else alone
            variable._value = jax.ShapeDtypeStruct(
                variable.shape, variable._dtype, sharding=sharding
            )
        check(model)
        batch = [
            jax.ShapeDtypeStruct(
                shape,
                "float32",
                sharding=distribution.get_data_layout(shape).backend_layout
                if distribution
                else alone,
            )
            for shape in ((batch_size, *model.input_shape[1:]), _labels(model, batch_size))
        ]
        # Keras wraps its compiled step in one that asks an iterator for the batch.
        model._make_function = lambda step, **_: step
        model.make_train_function()
        state = model._get_jax_state(
            trainable_variables=True,
            non_trainable_variables=True,
            optimizer_variables=True,
            metrics_variables=True,
        )
        lowered = model.train_function.lower(state, tuple(batch))
    mesh = distribution.device_mesh if distribution else None
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True)) if mesh else {}
    return Step(model, lowered, sizes)


def _compiled(model, recipe, batch_size):
    """As `finetune` compiles it, with all variables that `fit` makes."""
    recipe.prepare(model)
    model.compile(
        optimizer=recipe.optimizer(model),
        loss=recipe.loss_function(model),
        weighted_metrics=metrics(model.output_shape[-1]),
    )
    images = keras.KerasTensor((batch_size, *model.input_shape[1:]))
    model._symbolic_build(
        data_batch=(images, keras.KerasTensor(_labels(model, batch_size)))
    )
    return model


def _labels(model, batch_size):
    return batch_size, model.output_shape[-1]


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """All variables of a training, each once."""
    variables = [
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    ]
    return list({id(variable): variable for variable in variables}.values())


def bytes_of(variables: list[keras.Variable]) -> int:
    """Bytes that variables without values take on a device."""
    values = [variable._value for variable in variables]
    return sum(prod(v.sharding.shard_shape(v.shape)) * v.dtype.itemsize for v in values)


def compile_step(step: Step, chip: Chip | None) -> Compiled | OutOfMemory:
    """The program of a step, or `OutOfMemory` where the compiler finds it too large.

    Args:
        step: `Step`.
        chip: that it is for; `None` for the CPU.
    """
    from jax.errors import JaxRuntimeError

    is_tpu = chip is not None and chip.gpu is None
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if is_tpu else None
        if chip and chip.gpu:  # there is none to try kernels on
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
        # `as_text` has JAX read what the compiler has written: that of libtpu 0.0.51 for
        # v6e JAX 0.10.2 does not understand.
        (path,) = Path(folder).glob("*jit_train_step*after_optimizations.txt")
        return Compiled(executable, path.read_text("utf-8"))


def out_of_memory(message: str) -> OutOfMemory:
    """What the message of a compiler says."""
    first = next(line for line in message.splitlines() if line.strip())
    patterns = {
        False: r"temporaries \(([\d.]+)([KMG])\) exceeds available HBM",
        True: r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm",
    }
    for is_all, pattern in patterns.items():
        if match := re.search(pattern, message):
            return OutOfMemory(round(float(match[1]) * UNITS[match[2]]), is_all, first)
    return OutOfMemory(None, False, first)
