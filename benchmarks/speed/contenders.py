"""Contenders: keras_vit and other packages, each a function to time for a case.

A contender is imported, builds its model with random weights, and gives the function
that is timed: NumPy images in, NumPy logits out, or a step of training. All of one
backend train by the same optimizer, SGD with a momentum of 0.9, on the cross-entropy
of 1000 classes, in float32.
"""

import contextlib
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.speed.cases import CLASSES, TRAINING

RATE, MOMENTUM = 0.01, 0.9
# On CPU Keras compiles by XLA on TensorFlow only where it is asked to (`jit_compile`).
XLA = "-xla"
KERAS_BACKENDS = ("tensorflow", "tensorflow" + XLA, "jax", "torch")


def batch(case):
    """Images and labels."""
    rng = np.random.default_rng(0)
    shape = (case.batch_size, case.image_size, case.image_size, 3)
    images = rng.uniform(-1, 1, shape).astype("float32")
    return images, np.arange(case.batch_size) % CLASSES


def of_keras(build):
    """Decorates a builder of Keras models that return logits."""

    def make(case, jit_compile="auto"):
        import keras

        model = build(case)
        images, labels = batch(case)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(RATE, MOMENTUM)
        model.compile(optimizer, loss, jit_compile=jit_compile)
        if case.task != TRAINING:
            return lambda: model.predict_on_batch(images)
        return lambda: model.train_on_batch(images, labels)

    return make


def of_torch(build):
    """Decorates a builder of torch modules, with or without `.logits`."""

    def make(case):
        import torch

        model = build(case)
        images, labels = batch(case)
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        images, labels = torch.from_numpy(images), torch.from_numpy(labels)

        def logits():
            outputs = model(images)
            return getattr(outputs, "logits", outputs)

        def infer():
            with torch.inference_mode():
                return logits().numpy()

        if case.task != TRAINING:
            model.eval()
            return infer
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)

        def train():
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(logits(), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return train

    return make


def keras_vit(case):
    """keras_vit as users have it: the last block computes the class token alone."""
    import keras_vit

    return getattr(keras_vit, case.model)(
        weights=None,
        input_shape=(case.image_size, case.image_size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )


def keras_hub(case):
    """KerasHub."""
    import keras
    from keras_hub.models import ViTBackbone

    backbone = ViTBackbone(
        image_shape=(case.image_size, case.image_size, 3),
        dropout_rate=0.0,
        attention_dropout=0.0,
        **case.architecture,
    )
    head = keras.layers.Dense(CLASSES)
    return keras.Model(backbone.input, head(backbone.output[:, 0]))


KIMM = {"ViTTi16": "Tiny16", "ViTB16": "Base16", "ViTL16": "Large16"}


def kimm(case):
    """Kimm."""
    import kimm

    return getattr(kimm.models, f"VisionTransformer{KIMM[case.model]}")(
        input_shape=(case.image_size, case.image_size, 3),
        weights=None,
        classes=CLASSES,
        classifier_activation=None,
    )


def transformers(case):
    """transformers, whose attention is torch's own."""
    from transformers import ViTConfig, ViTForImageClassification

    fields = case.architecture
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=fields["hidden_dim"],
            num_hidden_layers=fields["num_layers"],
            num_attention_heads=fields["num_heads"],
            intermediate_size=fields["mlp_dim"],
            image_size=case.image_size,
            patch_size=fields["patch_size"],
            num_labels=CLASSES,
        )
    )


HYBRIDS = {"R50ViTB16": "vit_base_r50_s16"}  # timm's names, which end with the size


def timm(case):
    """Timm."""
    if "stem" in case.architecture:
        from timm import create_model

        name = f"{HYBRIDS[case.model]}_{case.image_size}"
        return create_model(name, num_classes=CLASSES)
    from timm.models.vision_transformer import VisionTransformer

    fields = case.architecture
    return VisionTransformer(
        img_size=case.image_size,
        patch_size=fields["patch_size"],
        embed_dim=fields["hidden_dim"],
        depth=fields["num_layers"],
        num_heads=fields["num_heads"],
        mlp_ratio=fields["mlp_dim"] / fields["hidden_dim"],
        num_classes=CLASSES,
    )


def declare_torchvision():
    """Lets a torchvision be imported that was built for another torch.

    timm and transformers import it where it is there, and their ViTs use none of the
    compiled operations, whose names alone torchvision asks for. There is no build of it
    for torch without CUDA.
    """
    import torch

    found = find_spec("torchvision")
    if found is None:
        return
    folder = Path(found.origin).parent
    with contextlib.suppress(OSError):  # of a library that needs CUDA's
        for library in folder.glob("_C*.so"):
            torch.ops.load_library(library)
            return
    text = (folder / "_meta_registrations.py").read_text()
    for name in {"nms", "qnms", *re.findall(r'register_meta\("(\w+)"\)', text)}:
        torch.library.define(f"torchvision::{name}", "(Tensor boxes) -> Tensor")


def flax(case):
    """The original's structure, of Flax' own layers."""
    import jax

    from benchmarks.speed.flax_vit import ViT

    model = ViT(classes=CLASSES, **case.architecture)
    images, labels = batch(case)
    weights = jax.jit(model.init)(jax.random.key(0), images)
    if case.task != TRAINING:
        forward = jax.jit(model.apply)
        return lambda: np.asarray(forward(weights, images))

    def loss(weights, images, labels):
        logits = jax.nn.log_softmax(model.apply(weights, images))
        return -logits[np.arange(len(images)), labels].mean()

    def step(state, images, labels):
        weights, momentum = state
        value, gradients = jax.value_and_grad(loss)(weights, images, labels)
        momentum = jax.tree.map(lambda m, g: MOMENTUM * m - RATE * g, momentum, gradients)
        return value, (jax.tree.map(lambda w, m: w + m, weights, momentum), momentum)

    step = jax.jit(step, donate_argnums=0)
    state = weights, jax.tree.map(np.zeros_like, weights)

    def train():
        nonlocal state
        value, state = step(state, images, labels)
        jax.block_until_ready(state)
        return float(value)

    return train


# What must be done before a package can be imported.
PREPARATIONS = {"timm": declare_torchvision, "transformers": declare_torchvision}

# Name, backends (one each time) and what makes it of a case.
CONTENDERS = {
    "keras_vit": (KERAS_BACKENDS, of_keras(keras_vit)),
    "keras_hub": (KERAS_BACKENDS, of_keras(keras_hub)),
    "kimm": (KERAS_BACKENDS, of_keras(kimm)),
    "flax": (("jax",), flax),
    "transformers": (("torch",), of_torch(transformers)),
    "timm": (("torch",), of_torch(timm)),
}


def can(name, case) -> bool:
    """`True` if a contender has the model."""
    if name == "kimm":
        return case.model in KIMM
    if "stem" in case.architecture:
        return name == "keras_vit" or (name == "timm" and case.model in HYBRIDS)
    return True
