"""Plans for 8 virtual devices, and the steps that `fit` really runs on them, for tests.

As a program, on JAX with XLA_FLAGS=--xla_force_host_platform_device_count=8, it writes
what it saw to a JSON file.
"""

import contextlib
import json
import os
import sys
import time

import jax
import keras
import numpy as np

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.distribution import checks, layouts, strategy
from keras_vit.planning import CHIPS, PlannedObjective, plan, step
from keras_vit.planning.targets import target
from keras_vit.runs.objectives import OBJECTIVES
from keras_vit.training import SmallData

NAMES = ("fsdp", "tensor_parallel:4")
ARCHITECTURE = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "mlp_dim": 64}
ARCHITECTURE |= {"patch_size": 4, "full_last_block": True}
# With whatever has a state of its own: dropout, accumulation, averages, clipping.
RECIPE = SmallData.for_examples(
    32,
    steps=2,
    batch_size=16,
    micro_batch_size=8,
    image_size=16,
    warmup_steps=0,
    ema_momentum=0.5,
    dropout_rate=0.1,
    rematerialize=True,
    augmentation=Augmentation(crop="resize"),
)
PLAIN = SmallData.for_examples(32, steps=4, batch_size=8, image_size=16, warmup_steps=0)
CLASSES = 8


def build(recipe, dtype):
    return keras_vit.ViTB16(
        weights=None,
        image_size=16,
        classes=CLASSES,
        classifier_activation=None,
        dtype=dtype,
        **ARCHITECTURE,
        **recipe.model_arguments(),
    )


def of_fit(name, recipe, dtype):
    """The step that `finetune` runs on arrays, and bytes of them on the first device."""
    images = np.zeros((32, 16, 16, 3), "uint8")
    data = keras_vit.data.load((images, np.arange(32) % CLASSES))
    seen = {}

    def make(compiled_step, **_):
        def function(state, iterator):
            batch = next(iterator)
            arrays = keras.tree.flatten(state)
            seen["bytes"] = sum(a.addressable_shards[0].data.nbytes for a in arrays)
            seen["text"] = compiled_step.lower(state, batch).as_text()
            raise InterruptedError  # it need not run

        return function

    with strategy(name):
        model = build(recipe, dtype)
        model._make_function = make
        # A `fit` that is stopped in its first step ends in errors of its own.
        with contextlib.suppress(InterruptedError, TypeError):
            keras_vit.training.finetune(model, data, recipe, evaluations=1, verbose=0)
    return seen


def same_as_fit(name, recipe, dtype):
    """Compares the planned step with the one that runs, letter by letter."""
    images = recipe.micro_batch_size or recipe.batch_size
    planned = step.lower(
        lambda: build(recipe, dtype), recipe, target("cpu:8"), name, images
    )
    real = of_fit(name, recipe, dtype)
    variables = step.state_variables(planned.model)
    return {
        "text": planned.lowered.as_text() == real["text"],
        "lines": real["text"].count("\n"),
        "values": sorted({type(variable._value).__name__ for variable in variables}),
        "bytes": [step.bytes_of(variables), real["bytes"]],
    }


def planned(name, recipe=PLAIN, devices="cpu:8", **options):
    made = plan(
        *("ViTB16", devices, name, recipe), classes=CLASSES, **ARCHITECTURE, **options
    )
    return {"summary": made.summary(), "text": str(made), "counts": made.counts()}


def pretraining(name):
    """The step of `pretrain`, compared letter by letter, and its plan."""
    row = OBJECTIVES[name]
    recipe = row.small_recipe(32, steps=2, batch_size=8, image_size=16, warmup_steps=0)
    head = {"output_dim": 32, "projection_hidden_dim": 32, "bottleneck_dim": 8}
    own = {
        "masked_autoencoder": {"decoder_num_heads": 2},
        "self_distillation": head,
    }.get(name, {})

    def around(encoder):
        return row.model(encoder, **{**row.arguments(encoder, recipe, 0), **own})

    def make():
        given = {**ARCHITECTURE, **recipe.model_arguments()}
        return around(keras_vit.ViTB16(weights=None, image_size=16, classes=0, **given))

    lowered = step.lower(make, recipe, target("cpu:8"), "data_parallel", 8)
    with strategy("data_parallel"):
        model = make()
        data = keras_vit.data.load(np.zeros((32, 16, 16, 3), "uint8"), labels="none")
        seen = {}

        def compiled(compiled_step, **_):
            def function(state, iterator):
                seen["text"] = compiled_step.lower(state, next(iterator)).as_text()
                raise InterruptedError

            return function

        model._make_function = compiled
        with contextlib.suppress(InterruptedError, TypeError):
            keras_vit.training.pretrain(
                *(model, data, recipe), evaluations=1, verbose=0, streams=row.streams
            )
    made = plan(
        *("ViTB16", "cpu:8", "data_parallel", recipe),
        objective=PlannedObjective(name, around, row.operations),
        dtype="float32",
        **ARCHITECTURE,
    )
    return {
        "text": lowered.lowered.as_text() == seen["text"],
        "lines": seen["text"].count("\n"),
        "operations": row.operations(model),
        "summary": made.summary(),
        "page": str(made),
    }


def errors():
    def of(*arguments, **options):
        try:
            planned(*arguments, **options)
        except ValueError as error:
            return str(error)
        return None

    return {
        "none": of("none"),
        "batch": of("data_parallel", PLAIN.replace(batch_size=12)),
        "many": of("data_parallel", devices="cpu:9"),
        "axis": of("tensor_parallel:3"),
    }


def refused():
    """A plan of what a compiler finds too large, by its own words."""
    message = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
    message += "the total memory required for HLO temporaries (120.90G) exceeds available "
    message += "HBM (15.75G). HLO module: jit_train_step.\nSee https://openxla.org/"

    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError(message)

    one = step.TracedStep(None, Lowered(), {})
    found = step.compile_step(one, CHIPS["v5e"])
    return [found.bytes, found.is_all, found.message]


def main(folder):
    start = time.time()
    layouts.MIN_SIZE = checks.MIN_SIZE = 256  # as the models are tiny
    before = np.asarray(keras.random.normal((2,), seed=1)).tolist()
    seen = {
        "same": {
            "fsdp": same_as_fit("fsdp", RECIPE, "mixed_bfloat16"),
            "tensor_parallel:4": same_as_fit("tensor_parallel:4", PLAIN, "float32"),
        },
        "plans": {name: planned(name) for name in NAMES},
        "pretraining": {name: pretraining(name) for name in OBJECTIVES},
        "errors": errors(),
        "refused": refused(),
    }
    print("planned", time.time() - start)
    # A plan leaves nothing behind that was traced.
    model = build(PLAIN, "float32")
    seen["after"] = [np.asarray(model(np.ones((1, 16, 16, 3)))).tolist()]
    seen["random"] = [before, np.asarray(keras.random.normal((2,), seed=1)).tolist()]
    with open(os.path.join(folder, "seen.json"), "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
