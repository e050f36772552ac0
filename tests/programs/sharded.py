"""Tiny models on 8 virtual devices under each strategy, for tests of them.

As a program, on JAX with XLA_FLAGS=--xla_force_host_platform_device_count=8, it writes
what it saw to a JSON file.
"""

import json
import os
import re
import sys
import time
from collections import Counter

import keras
import numpy as np
from helpers import path_of
from resumed import outcome
from trainings import commands, distance, distilled, images, killed, photos, pretraining
from uneven import on_several_devices

import keras_vit
from keras_vit.distribution import check, checks, layouts, strategy
from keras_vit.training import SmallData, enable_lora
from keras_vit.weight_paths import slot_paths

NAMES = ("fully_sharded", "tensor_parallel:4", "fully_sharded:4")
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
MOMENTUM = PLAIN.replace(algorithm="sgd", base_learning_rate=0.1, layerwise_decay=1.0)
VIT = {"image_size": 16, "patch_size": 4, "hidden_dim": 32, "num_layers": 1}
VIT |= {"num_heads": 4, "mlp_dim": 64, "classes": 3, "representation_size": 16}
VIT |= {"classifier_activation": None, "pooling": "gap"}
STEM = {"num_units": [1], "width_factor": 0.5}
GATED = {"mlp": "swiglu", "qk_norm": True, "num_registers": 2, "merged_tokens": 3}
WAYS = ("none", "fully_sharded", "none", "tensor_parallel:2", "fully_sharded:4")
COMMANDS = ("none", "data_parallel", "tensor_parallel:4", "fully_sharded")
# A hybrid takes the longest, and is made of what the others are made of.
OF_OTHERS = {
    "lora": ("tensor_parallel:4", "fully_sharded", "fully_sharded:4"),
    "hybrid": ("tensor_parallel:4", "fully_sharded:4"),
    "bit": ("tensor_parallel:4", "fully_sharded", "fully_sharded:4"),
}


def vit(**fields):
    """As helpers.py has it, with noise in every weight; zeros would hide errors."""
    return noisy(keras_vit.VisionTransformer(**{**VIT, **fields}))


def noisy(model):
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


def on_batch(model, images, labels):
    """The loss of this batch alone, by `train_on_batch`.

    Keras 3.14 on JAX distributes no batch without weights.
    """
    model.reset_metrics()  # Keras 3.14 returns means since they were reset
    is_3_14 = keras.__version__.startswith("3.14.")
    weights = [np.ones(len(images), "float32")] if is_3_14 else []
    return model.train_on_batch(images, labels, *weights)


def arrays(variables):
    return [np.asarray(keras.ops.convert_to_numpy(v), "float32") for v in variables]


def worst(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs if a.size)


def specs(paths, variables):
    """The axes of each variable's dimensions, as JAX has them, by path."""
    return {
        re.sub(r"^adam_?\d*/", "adam/", path): list(v.value.sharding.spec)
        for path, v in zip(paths, variables, strict=True)
        if len(v.shape)
    }


def train(names, recipe, dtype, steps):
    """Losses, weights and slots against those of one device, and where they are."""
    seen = {}
    for name in ("none", *names):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model = compiled(vit(**recipe.model_arguments(), dtype=dtype), recipe)
            losses = [on_batch(model, *batch) for batch in batches(steps)]
            check(model)  # once more: a step has made every array anew
            state = arrays(model.weights), arrays(model.optimizer.variables)
        if name == "none":
            start, expected = losses[0], (losses, state)
            continue
        seen[name] = {
            "loss": float(np.abs(np.subtract(losses, expected[0])).max()),
            "weights": worst(state[0], expected[1][0]),
            "slots": worst(state[1], expected[1][1]),
            "moved": abs(float(losses[-1] - start)),
            "specs": specs(map(path_of, model.weights), model.weights),
            "slot specs": specs(slot_paths(model), model.optimizer.variables),
        }
    return seen


def initial():
    """Number of weights whose initial values differ from one device, by strategy."""
    seen, expected = {}, None
    for name in ("none", "data_parallel", *NAMES):
        keras.utils.set_random_seed(0)
        with strategy(name):
            state = arrays(keras_vit.VisionTransformer(**VIT).weights)
        expected = expected or state
        pairs = zip(state, expected, strict=True)
        seen[name] = sum(not np.array_equal(ours, theirs) for ours, theirs in pairs)
    return seen


def loaded(folder):
    """A training that changes its devices by files, and is compared to one that does not."""
    steps = batches(2 * len(WAYS))
    # Five, which no number of devices divides: `predict` fills them up.
    images, path = steps[0][0][:5], os.path.join(folder, "saved")
    seen, losses, saved = {}, [], None
    for before, name in zip((None, *WAYS), WAYS, strict=False):
        with strategy(name):
            if before is None:
                keras.utils.set_random_seed(0)
                model = one = compiled(vit(), PLAIN.replace(base_learning_rate=1e-2))
                start = arrays(model.weights)
            else:
                model = keras.models.load_model(f"{path}.keras")
                check(model)
                seen[f"{before} -> {name}"] = {
                    ".keras": off(model, *saved),
                    **loaded_again(model, path, saved),
                }
            losses += [on_batch(model, *batch) for batch in steps[len(losses) :][:2]]
            check(model)
            saved = arrays(model.weights), images, model.predict(images, verbose=0)
            model.save(f"{path}.keras")
            model.save_weights(f"{path}.weights.h5")
            keras_vit.save_weights(model, f"{path}.safetensors", layout="timm")
            if name == WAYS[-1]:
                seen[f"{name} -> {name}"] = loaded_again(model, path, saved)
    expected = losses[:2] + [on_batch(one, *batch) for batch in steps[2:]]
    return {
        "ways": seen,
        "loss": float(np.abs(np.subtract(losses, expected)).max()),
        "weights": worst(arrays(model.weights), arrays(one.weights)),
        "slots": worst(arrays(model.optimizer.variables), arrays(one.optimizer.variables)),
        "moved": worst(arrays(model.weights), start),
    }


def loaded_again(model, path, saved):
    """Difference of a reset model after loading each kind of file."""
    seen = {}
    for name, load in {
        ".weights.h5": model.load_weights,
        ".safetensors": lambda path: keras_vit.load_weights(model, path),
    }.items():
        for weight in model.weights:
            weight.assign(np.zeros(weight.shape))
        load(f"{path}{name}")
        check(model)
        seen[name] = off(model, *saved)
    return seen


def off(model, weights, images, outputs):
    found = model.predict(images, verbose=0)
    return [worst(arrays(model.weights), weights), worst([found], [outputs])]


def collectives(name, **fields):
    """Number of collectives in a compiled training step, and shapes of all-gathers."""
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
    """Number of elements of a type such as "f32[32,64]{0,1}"."""
    return int(np.prod([int(n) for n in re.search(r"\[(.*?)\]", shape)[1].split(",")]))


def others():
    """Trainings of other models against those of one device, and where weights are."""
    seen = {}
    models = {
        "lora": lambda: noisy(enable_lora(vit(pooling="map", **GATED), 4)),
        "hybrid": lambda: vit(patch_size=1, stem=STEM),
        "bit": bit,
    }
    for kind, make in models.items():
        seen[kind] = {}
        for name in ("none", *OF_OTHERS[kind]):
            keras.utils.set_random_seed(0)
            with strategy(name):
                model = compiled(make(), MOMENTUM)
                start = arrays(model.trainable_weights)
                side = model.input_shape[1]
                losses = [on_batch(model, *batch) for batch in batches(3, side)]
                check(model)
            if name == "none":
                expected = losses, arrays(model.weights)
                continue
            seen[kind][name] = {
                "loss": float(np.abs(np.subtract(losses, expected[0])).max()),
                "weights": worst(arrays(model.weights), expected[1]),
                "moved": worst(arrays(model.trainable_weights), start),
                "specs": specs(map(path_of, model.weights), model.weights),
            }
    return seen


def bit():
    fields = {"classes": 3, "classifier_activation": None}
    return noisy(keras_vit.BiTResNet(32, (1,), 0.5, **fields))


def self_distilled():
    """Distances of a self-distillation from that of one device, by strategy."""
    seen = {}
    for name in ("none", "data_parallel", "fully_sharded:4"):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model, views = pretraining("distilling")
            history = model.fit(views, epochs=3, batch_size=8, shuffle=False, verbose=0)
            check(model)
            found = outcome(model, history)
        if name == "none":
            expected = found
            continue
        seen[name] = {
            "distance": distance(found, expected),
            "learned": float(np.ptp(found["history/loss"])),
        }
    return seen


def of_commands(folder):
    photos(folder)
    return commands(folder, COMMANDS, ended="fully_sharded")


def uneven():
    """Rows that do not divide: of every kind of data, and under every strategy."""
    return {
        "kinds": on_several_devices("data_parallel"),
        "strategies": uneven_under_strategies(),
        "after errors": after_errors(),
    }


def uneven_under_strategies():
    """Distances of a ViT from that of one device; its own data is scored with `metrics`."""
    seen = {}
    images, labels = batches(1)[0]
    data = keras_vit.data.load((images[:5].astype("uint8"), np.arange(5) % 3))
    for name in ("none", *NAMES):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model = vit(dropout_rate=0.1)
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy", "mse"])
            stream = data.prepared_for(model, batch_size=4, label_mode="categorical")
            found = [
                *(on_batch(model, images[:n], labels[:n]) for n in (5, 3)),
                model.evaluate(stream.evaluation("train"), verbose=0),
                model.predict_on_batch(images[:3]),
                *arrays(model.weights),
            ]
        found = [np.asarray(numbers) for numbers in found]
        if name == "none":
            expected = found
            continue
        seen[name] = worst(found, expected)
    return seen


def after_errors():
    """Distances of a model from before, where the data ended a call in its first batch."""
    with strategy("data_parallel"):
        model = compiled(vit(), PLAIN)
        images, labels = batches(1)[0]
        before = model.evaluate(images, labels, verbose=0)
        seen = {}
        for name in ("fit", "evaluate", "predict"):
            try:
                getattr(model, name)(Broken(), verbose=0)
            except OSError as error:
                after = model.evaluate(images, labels, verbose=0)
                seen[name] = [str(error), abs(after - before)]
    return seen


class Broken(keras.utils.PyDataset):
    """Has a first batch, which is read to build a model, but once."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise OSError("no such image")


def errors():
    """Messages of errors, by mistake."""

    def of(function):
        try:
            function()
        except ValueError as error:  # models are numbered in a process
            return re.sub(r"vision_transformer(_\d+)?[/_]", "", str(error))
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

    def divide():
        data = keras_vit.data.load(images())
        with strategy("data_parallel"):
            keras_vit.training.finetune(vit(), data, PLAIN.replace(batch_size=9))

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
        "divide": of(divide),
        "mirrored": of(keras_vit.distribution.mirrored),
        "colon": of(lambda: strategy("data_parallel:4")),
        "no number": of(lambda: strategy("tensor_parallel")),
    }


def taught():
    """The distance of a student's training with a teacher from that on one device."""
    (pixels, labels), found = images()["train"], []
    for name in ("none", "data_parallel", "fully_sharded"):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model = distilled()
            options = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}
            history = model.fit(pixels / np.float32(255), labels, **options)
        found.append(outcome(model, history))
    return {
        "learned": float(np.ptp(found[0]["history/loss"])),
        "distances": [distance(each, found[0]) for each in found[1:]],
    }


PARTS = {
    "float32": lambda _: train(NAMES, RECIPE, "float32", 6),
    "initial": lambda _: initial(),
    "loaded": loaded,
    "bfloat16": lambda _: train(NAMES[-1:], PLAIN, "mixed_bfloat16", 4),
    "tensor collectives": lambda _: collectives("tensor_parallel:4", pooling="token"),
    "sharded collectives": lambda _: collectives("fully_sharded"),
    "others": lambda _: others(),
    "self-distilled": lambda _: self_distilled(),
    "killed": killed,
    "commands": of_commands,
    "uneven": lambda _: uneven(),
    "taught": lambda _: taught(),
    "errors": lambda _: errors(),
}


def main(folder, *parts):
    import jax

    layouts.MIN_SIZE = checks.MIN_SIZE = 256  # as the models are tiny
    # What is trained again is compiled once.
    jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    seen = {}
    for part in parts or PARTS:
        start = time.time()
        seen[part] = PARTS[part](folder)
        print(part, time.time() - start, flush=True)
    with open(os.path.join(folder, "seen.json"), "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
