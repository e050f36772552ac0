"""Tiny models on 8 virtual devices under each strategy, for tests of them.

As a program, on JAX with XLA_FLAGS=--xla_force_host_platform_device_count=8, it writes
what it saw to a JSON file.
"""

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections import Counter

import keras
import numpy as np

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.distribution import check, checks, layouts, strategy
from keras_vit.training import SmallData, enable_lora

NAMES = ("data_parallel", "fully_sharded", "tensor_parallel:4", "fully_sharded:4")
# Whatever could be different: dropout, clipping, accumulation, averages.
RECIPE = SmallData.for_examples(
    64,
    steps=3,
    batch_size=16,
    micro_batch_size=8,
    warmup_steps=0,
    base_learning_rate=1e-2,
    global_clipnorm=0.1,
    ema_momentum=0.5,
    weight_decay=0.1,
    dropout_rate=0.1,
)
PLAIN = SmallData.for_examples(64, steps=4, warmup_steps=0, batch_size=8)
VIT = {"image_size": 16, "patch_size": 4, "hidden_dim": 32, "num_layers": 1}
VIT |= {"num_heads": 4, "mlp_dim": 64, "classes": 3, "representation_size": 16}
VIT |= {"classifier_activation": None, "pooling": "gap"}
STEM = {"num_units": [1], "width_factor": 0.5}


def vit(**fields):
    """As tests/helpers.py has it, with noise in every weight; zeros would hide errors."""
    model = keras_vit.VisionTransformer(**{**VIT, **fields})
    rng = np.random.default_rng(0)
    for weight in model.weights:
        noise = rng.normal(scale=0.1, size=weight.shape).astype("float32")
        weight.assign(keras.ops.convert_to_numpy(weight) + noise)
    return model


def batches(number, size=16):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (number, 8, size, size, 3)).astype("float32")
    labels = np.eye(3, dtype="float32")[rng.integers(0, 3, (number, 8))]
    return list(zip(images, labels, strict=True))


def compiled(model, recipe):
    optimizer = recipe.optimizer(model)
    optimizer.epsilon = 1e-3  # or Adam takes a whole step of what is but rounding
    model.compile(optimizer, recipe.loss_function(model))
    model.optimizer.build(model.trainable_variables)
    check(model)
    return model


def arrays(variables):
    return [np.asarray(keras.ops.convert_to_numpy(v), "float32") for v in variables]


def worst(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs if a.size)


def specs(variables):
    """The axes of each variable's dimensions, as JAX has them, by path."""
    return {
        re.sub(r"^adam_?\d*/", "adam/", v.path): list(v.value.sharding.spec)
        for v in variables
        if len(v.shape)
    }


def train(names, recipe, dtype, steps, folder):
    """Losses, weights and slots against those of one device, and where they are."""
    seen = {}
    for name in ("none", *names):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model = compiled(vit(**recipe.model_arguments(), dtype=dtype), recipe)
            losses = [model.train_on_batch(*batch) for batch in batches(steps)]
            check(model)  # once more: a step has made every array anew
            state = arrays(model.weights), arrays(model.optimizer.variables)
            if dtype == "float32":
                model.save_weights(os.path.join(folder, f"{name}.weights.h5"))
        if name == "none":
            start, expected = losses[0], (losses, state)
            continue
        seen[name] = {
            "loss": float(np.abs(np.subtract(losses, expected[0])).max()),
            "weights": worst(state[0], expected[1][0]),
            "slots": worst(state[1], expected[1][1]),
            "moved": abs(float(losses[-1] - start)),
            "specs": specs(model.weights),
            "slot specs": specs(model.optimizer.variables),
        }
    return seen


def loaded(folder):
    """Outputs of weights that were saved under one strategy and loaded under another."""
    images = batches(1)[0][0]
    outputs = {}
    pairs = [("none", "fully_sharded"), ("fully_sharded", "none"), ("none", "none")]
    pairs += [("tensor_parallel:4", "tensor_parallel:2"), ("tensor_parallel:4", "none")]
    pairs += [("fully_sharded:4", "fully_sharded:2"), ("fully_sharded:4", "none")]
    for saved, name in pairs:
        with strategy(name):
            model = vit()
            model.load_weights(os.path.join(folder, f"{saved}.weights.h5"))
            check(model)
            outputs[saved, name] = model.predict(images, verbose=0)
            path = os.path.join(folder, "model.keras")
            if name == "fully_sharded:2":
                model.save(path)
    again = keras.models.load_model(path).predict(images, verbose=0)
    of_one = {saved: out for (saved, name), out in outputs.items() if name == "none"}
    seen = {
        f"{saved} -> {name}": worst([out], [of_one[saved]])
        for (saved, name), out in outputs.items()
        if name != "none"
    }
    seen[".keras"] = worst([again], [of_one["fully_sharded:4"]])
    seen["fully_sharded -> none"] = worst([of_one["fully_sharded"]], [of_one["none"]])
    return seen


def collectives(name, **fields):
    """How often each is in the compiled step of a training, and shapes of all-gathers."""
    import jax

    with strategy(name):
        model = compiled(vit(num_layers=2, **fields), PLAIN)
        layout_of = keras.distribution.distribution().get_data_layout
        batch = tuple(
            jax.device_put(part, layout_of(part.shape).backend_layout)
            for part in batches(1)[0]
        )
        model._symbolic_build(data_batch=batch)  # makes the metrics
        state = model._get_jax_state(
            trainable_variables=True,
            non_trainable_variables=True,
            optimizer_variables=True,
            metrics_variables=True,
        )
        shardings = (None, model._get_state_sharding_spec())
        step = jax.jit(model.train_step, out_shardings=shardings, donate_argnums=0)
        text = step.lower(state, batch).compile().as_text()
    kinds = r"all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    return {
        "counts": Counter(kind for _, kind in found),
        "gathered": sorted(_size(shape) for shape, kind in found if kind == "all-gather"),
        "weights": sorted({int(np.prod(weight.shape)) for weight in model.weights}),
    }


def _size(shape):
    """How many numbers "f32[32,64]{0,1}" has."""
    return int(np.prod([int(n) for n in re.search(r"\[(.*?)\]", shape)[1].split(",")]))


def others():
    """Where weights of other models are, and what these compute split by tensors."""
    seen = {}
    models = {
        "lora": lambda: enable_lora(vit(pooling="map"), 4),
        "hybrid": lambda: vit(patch_size=1, stem=STEM),
        "bit": lambda: bit(),
        "gated": lambda: vit(mlp="swiglu", qk_norm=True, num_registers=2),
    }
    for kind, make in models.items():
        expected = None
        for name in ("none", "tensor_parallel:4", "fully_sharded:4"):
            keras.utils.set_random_seed(0)
            with strategy(name):
                model = make()
                if name == "fully_sharded:4":
                    compiled(model, PLAIN)
                    seen[kind]["fully sharded"] = specs(model.weights)
                    continue
                side = model.input_shape[1]
                outputs = model.predict(batches(1, side)[0][0], verbose=0)
                if expected is None:
                    expected = outputs
                    continue
                check(model)
                error = worst([outputs], [expected]) / float(np.abs(expected).max())
                seen[kind] = {"error": error, "specs": specs(model.weights)}
    return seen


def bit():
    model = keras_vit.BiTResNet(32, (1,), 0.5, classes=3, classifier_activation=None)
    rng = np.random.default_rng(0)
    head = model.get_layer("head").kernel
    head.assign(rng.normal(size=head.shape).astype("float32"))
    return model


class Stop(keras.callbacks.Callback):
    """What a kill leaves: an epoch is done, and no more comes."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            raise InterruptedError


def resumed(folder):
    """A training that changes its devices on the way, and its validation of 5 images."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (21, 16, 16, 3)).astype("uint8")
    labels = np.arange(21) % 3
    splits = {"train": (images[:16], labels[:16]), "validation": (images[16:], labels[16:])}
    data = keras_vit.data.load(splits)
    recipe = PLAIN.replace(augmentation=Augmentation(crop="resize"))
    options = {"evaluations": 2, "verbose": 0}

    def run(name, resume=None, callbacks=()):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model = vit()
            history = keras_vit.training.finetune(
                model, data, recipe, resume=resume, callbacks=callbacks, **options
            )
        return history.history, arrays(model.weights)

    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("keras_vit").addHandler(handler)
    history, weights = run("none")
    with contextlib.suppress(InterruptedError):
        run("fully_sharded:4", folder, [Stop()])
    other_history, other_weights = run("tensor_parallel:2", folder)
    assert history.keys() == other_history.keys()
    return {
        "weights": worst(other_weights, weights),
        "said": said,
        "history": {
            key: float(np.abs(np.subtract(other_history[key], values)).max())
            for key, values in history.items()
        },
    }


def errors():
    """What is said of mistakes, by what they are."""

    def of(function):
        try:
            function()
        except ValueError as error:
            return str(error)
        return None

    def build(name, *arguments, make=vit, **fields):
        with getattr(keras_vit.distribution, name)(*arguments, **fields).scope():
            return make()

    def own_head(units=512):
        encoder = vit(classes=0, representation_size=None)
        outputs = keras.layers.Dense(units, name="mine")(encoder.output)
        return keras.Model(encoder.input, outputs)

    def checked(name, *arguments, **fields):
        with getattr(keras_vit.distribution, name)(*arguments, **fields).scope():
            check(vit())

    def of_outside():
        model = vit()
        with strategy("fully_sharded"):
            check(model)

    def of_keras(*patterns):
        mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"))
        layout_map = keras.distribution.LayoutMap(mesh)
        for pattern in patterns:
            layout_map[pattern] = (None, "model")
        with keras.distribution.ModelParallel(layout_map=layout_map).scope():
            check(vit())

    def slots():
        with strategy("tensor_parallel:4"):
            model = compiled(vit(), PLAIN)
            (slot,) = (
                v
                for v in model.optimizer.variables
                if v.path.endswith("mlp_dense_1_kernel_velocity")
            )
            mesh = keras.distribution.distribution().device_mesh
            slot._layout = keras.distribution.TensorLayout((None, None), mesh)
            slot.assign(slot.value)
            check(model)

    mine = {"mine/kernel": (None, "model"), "mine/bias": ("model",)}
    return {
        "heads": of(lambda: build("tensor_parallel", 8)),
        "axis": of(lambda: build("tensor_parallel", 3)),
        "one": of(lambda: build("tensor_parallel", 1)),
        "no rule": of(lambda: build("tensor_parallel", 4, make=own_head)),
        "ruled": of(lambda: build("tensor_parallel", 4, make=own_head, layouts=mine)),
        "uneven": of(
            lambda: build("tensor_parallel", 4, make=lambda: own_head(510), layouts=mine)
        ),
        "no dimension": of(
            lambda: build("fully_sharded", make=lambda: vit(hidden_dim=36, mlp_dim=36))
        ),
        "pattern": of(lambda: checked("tensor_parallel", 4, layouts=mine)),
        "outside": of(of_outside),
        "keras large": of(lambda: of_keras(".*dense_1/kernel")),
        "keras pattern": of(lambda: of_keras("dense_1/kernel")),
        "slots": of(slots),
        "mirrored": of(keras_vit.distribution.mirrored),
        "colon": of(lambda: strategy("data_parallel:4")),
        "no number": of(lambda: strategy("tensor_parallel")),
    }


PARTS = {
    "float32": lambda folder: train(NAMES, RECIPE, "float32", 6, folder),
    "loaded": loaded,
    "bfloat16": lambda folder: train(NAMES[-1:], PLAIN, "mixed_bfloat16", 4, folder),
    "tensor collectives": lambda _: collectives("tensor_parallel:4", pooling="token"),
    "sharded collectives": lambda _: collectives("fully_sharded"),
    "others": lambda _: others(),
    "resumed": lambda folder: resumed(os.path.join(folder, "resume")),
    "errors": lambda _: errors(),
}


def main(folder, *parts):
    layouts.MIN_SIZE = checks.MIN_SIZE = 256  # as the models are tiny
    seen = {}
    for part in parts or PARTS:
        start = time.time()
        seen[part] = PARTS[part](folder)
        print(part, time.time() - start, flush=True)
    with open(os.path.join(folder, "seen.json"), "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
