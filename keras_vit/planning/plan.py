"""Plans of a training on devices that may be absent."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.cost import cost
from keras_vit.models.sizes import architecture_fields
from keras_vit.planning import printing
from keras_vit.planning.advice import advice, state_by_strategy
from keras_vit.planning.collectives import Collective, collectives
from keras_vit.planning.hlo import Program
from keras_vit.planning.roofline import Roofline, roofline
from keras_vit.planning.step import (
    OutOfMemory,
    bytes_of,
    compile_step,
    lower,
    state_variables,
    symbolic_batch,
)
from keras_vit.planning.targets import Target, target
from keras_vit.planning.traffic import moved_bytes
from keras_vit.training.recipe import Recipe
from keras_vit.training.recipes import IMAGENET, IMAGENET_21K, JFT_300M, ViTPreTraining
from keras_vit.zoo.constructors import CONSTRUCTORS

# JFT-300M: Sun et al. (arXiv 1707.02968); the ViT paper says 18k.
CLASSES = {IMAGENET: 1000, IMAGENET_21K: 21_843, JFT_300M: 18_291}
BACKWARD = 2  # FLOPs of a backward pass, in forward passes


@dataclass(frozen=True)
class Memory:
    """Memory that a step takes on one device, in bytes.

    Attributes:
        weights: the model's variables, random states included.
        optimizer: the optimizer's variables.
        batch: images, labels and metrics.
        temporaries: everything that is computed and kept in a step: activations,
            gradients, gathered weights. `None` where the compiler does not say.
        program: the compiled code.
        capacity: memory of the device; `None` for a CPU.
    """

    weights: int
    optimizer: int
    batch: int
    temporaries: int | None
    program: int = 0
    capacity: int | None = None

    @property
    def peak(self) -> int | None:
        """Sum of all parts; `None` where `temporaries` is."""
        if self.temporaries is None:
            return None
        return self.state + self.batch + self.temporaries + self.program

    @property
    def state(self) -> int:
        """Weights and optimizer, which stay from step to step."""
        return self.weights + self.optimizer


@dataclass(frozen=True)
class PlannedObjective:
    """An objective of pre-training without labels, to plan.

    Attributes:
        name: name of the objective.
        around: makes the model that is trained around an encoder.
        operations: multiply-accumulates of a step of that model for one image, with the
            gradients.
    """

    name: str
    around: Callable[[keras.Model], keras.Model]
    operations: Callable[[keras.Model], int]


@dataclass(frozen=True)
class Plan:
    """Cost of the compiled step of a training; prints as a table.

    Figures are those of one device and one step, unless stated otherwise. Where the recipe
    accumulates gradients, a step processes one micro-batch.

    Attributes:
        model: name of the architecture.
        objective: name of the objective of a training without labels, or `None`.
        config: arguments of the model, or of the encoder.
        parameters: number of parameters.
        dtype: name of the dtype policy.
        target: devices that the step is compiled for.
        strategy: name of the strategy.
        mesh: sizes of the axes over which weights and images are split.
        recipe: recipe of the training.
        images: images of a step on all devices.
        fits: `True` if the step fits into memory; `None` for a CPU.
        refusal: the compiler's message, if the step does not fit.
        memory: memory of the step.
        flops: floating-point operations as XLA counts them, the body of a loop once;
            `None` where the step did not compile, and for GPUs.
        model_flops: three times the operations of a forward pass, without recomputation;
            of a teacher without gradients once.
        moved_bytes: bytes read from and written to memory, see `planning.moved_bytes`.
        collectives: exchanges between devices.
        roofline: times at peak rates, a prediction.
        states: bytes of weights and optimizer under each strategy.
        advice: changes that would make the step fit, if it does not.
        seconds: time of the compilation.
    """

    model: str
    objective: str | None
    config: Mapping[str, Any]
    parameters: int
    dtype: str
    target: Target
    strategy: str
    mesh: Mapping[str, int]
    recipe: Recipe
    images: int
    fits: bool | None
    refusal: str | None
    memory: Memory
    flops: float | None
    model_flops: float
    moved_bytes: float | None
    collectives: tuple[Collective, ...]
    roofline: Roofline | None
    states: Mapping[str, int]
    advice: tuple[str, ...]
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        """Images per second of all devices at peak rates, which no program reaches."""
        return self.images / self.roofline.step if self.roofline else None

    @property
    def days(self) -> float | None:
        """Days of the whole training at peak rates, which no program reaches."""
        if self.roofline is None:
            return None
        steps = self.recipe.steps * self.recipe.gradient_accumulation_steps
        return steps * self.roofline.step / 86_400

    def counts(self) -> dict[str, int]:
        """Number of runs of each kind of collective."""
        counts = {}
        for one in self.collectives:
            counts[one.kind] = counts.get(one.kind, 0) + one.times
        return counts

    def summary(self) -> dict[str, Any]:
        """Returns the plan as a dictionary that JSON can hold."""
        return printing.summary(self)

    def __str__(self) -> str:
        return printing.page(self)


def plan(
    model: str,
    devices: str,
    strategy: str = "auto",
    recipe: Recipe | None = None,
    *,
    classes: int | None = None,
    objective: PlannedObjective | None = None,
    dtype: str = "mixed_bfloat16",
    say: Callable[[str], None] = lambda line: None,
    **overrides: Any,
) -> Plan:
    """Compiles the step of a training for devices that may be absent.

    The step is the one that `keras_vit.training.finetune` runs in `fit` with this model,
    recipe and strategy, or with an objective `keras_vit.training.pretrain`. The devices'
    own compiler compiles it, which takes minutes for TPUs. Nothing runs and no weight is in
    memory. Times are predictions from a chip's peak rates. For GPUs the plan is rough: XLA
    chooses kernels without timing them, and `model_flops` stands in for the operations of
    the program.

    Args:
        model: name of an architecture, such as `"ViTH14"`.
        devices: a kind of TPU (see `keras_vit.planning.CHIPS`) and its topology,
            `"v5e:4x4"`; a kind of GPU and the number in one machine, `"h100:8"`; or a
            number of virtual CPU devices, `"cpu:8"`.
        strategy: see `keras_vit.distribution.strategy`.
        recipe: recipe of the training, with its batch size; `None` takes the ViT paper's
            pre-training of the model on JFT-300M.
        classes: number of classes; `None` takes that of JFT-300M, or without labels none.
        objective: what is learned without labels; `None` for a training with labels.
        dtype: name of a dtype policy.
        say: is called with a line of text before each long step.
        **overrides: further arguments of the model.

    Returns:
        The `Plan`.

    Raises:
        ValueError: on a backend other than JAX, or if an argument is wrong or does not fit
            the others.
        ImportError: if libtpu, or for GPUs JAX' plugin, is not installed.

    Example:

    >>> print(plan("ViTB16", "v5e:4x4", "tensor_parallel:4"))
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "`plan` needs KERAS_BACKEND=jax, the backend that compiles for absent devices. "
            f"Received: {keras.backend.backend()}"
        )
    fields = architecture_fields(model)
    recipe = recipe or ViTPreTraining.for_model(model, JFT_300M)
    found = target(devices)
    images = recipe.micro_batch_size or recipe.batch_size
    given = {
        "image_size": arguments.pair(recipe.image_size, "image_size"),
        "classes": 0 if objective else classes or CLASSES[JFT_300M],
        "classifier_activation": None,
        "dtype": dtype,
        **overrides,
        **recipe.model_arguments(),
    }

    def build():
        network = CONSTRUCTORS[model](weights=None, **given)
        return objective.around(network) if objective else network

    say(f"traces the step of {model} under {strategy} for {images} images")
    step = lower(build, recipe, found, strategy, images)
    number = len(found.devices)
    say(f"compiles it for {number} × {found.device_name}; this takes minutes")
    start = time.monotonic()
    program = compile_step(step, found.chip)
    seconds = time.monotonic() - start

    config = (step.model.encoder if objective else step.model).get_config()
    if objective:
        operations = images * objective.operations(step.model)
    else:
        forward = cost(config, batch_size=images, dtype=dtype).multiply_accumulates
        operations = (1 + BACKWARD) * forward
    facts = {
        "model": model,
        "objective": objective.name if objective else None,
        "config": config,
        "parameters": sum(prod(weight.shape) for weight in step.model.weights),
        "dtype": dtype,
        "target": found,
        "strategy": strategy,
        "mesh": step.mesh,
        "recipe": recipe,
        "images": images,
        "memory": _memory(step.model, images, found, step.mesh, program),
        "model_flops": 2 * operations / number,
        "states": state_by_strategy(step.model, found, fields.get("num_heads")),
        "seconds": seconds,
    }
    if isinstance(program, OutOfMemory):
        facts |= {"fits": False, "refusal": program.message, "collectives": ()}
        facts |= dict.fromkeys(("flops", "moved_bytes", "roofline"))
    else:
        facts |= _program_facts(program, found, facts["memory"], facts["model_flops"])
    return Plan(**facts, advice=tuple(advice(facts, step.model)))


def _memory(model, images, found, mesh, program) -> Memory:
    variables = state_variables(model)
    weights, optimizer = bytes_of(model.variables), bytes_of(model.optimizer.variables)
    rest = bytes_of(variables) - weights - optimizer
    capacity = None
    if found.chip:
        capacity = found.chip.memory // found.devices_per_chip
    if isinstance(program, OutOfMemory):
        tensors = keras.tree.flatten(symbolic_batch(model, images // mesh.get("batch", 1)))
        batch = 4 * sum(prod(tensor.shape) for tensor in tensors) + rest
        temporaries = program.bytes
        if temporaries is not None and program.is_all:
            temporaries -= weights + optimizer + batch
        return Memory(weights, optimizer, batch, temporaries, 0, capacity)
    sizes = program.executable.memory_analysis()
    return Memory(
        weights,
        optimizer,
        batch=sizes.argument_size_in_bytes - weights - optimizer,
        temporaries=sizes.temp_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes,
        program=sizes.generated_code_size_in_bytes,
        capacity=capacity,
    )


def _program_facts(program, found, memory, model_flops) -> dict:
    # JAX has no such analysis for GPUs that are absent.
    counted = (program.executable.cost_analysis() or {}).get("flops")
    compiled = Program(program.text)
    exchanged = tuple(collectives(compiled, len(found.devices)))
    moved = moved_bytes(compiled)
    # XLA counts the body of a loop once, so it may count less than the model takes.
    flops = max(counted or 0, model_flops)
    fits = True if found.chip else None
    if found.chip and found.chip.gpu:  # its compiler does not refuse programs
        fits = memory.peak <= memory.capacity
    return {
        "fits": fits,
        "refusal": None,
        "collectives": exchanged,
        "flops": counted,
        "moved_bytes": moved,
        "roofline": roofline(
            found,
            flops,
            moved,
            sum(one.sent_bytes for one in exchanged),
        ),
    }
