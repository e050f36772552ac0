"""Rotary positions: time of DINOv3 beside the same model without them, and beside peers.

    KERAS_BACKEND=torch python -m benchmarks.rotary --model ViTB16 --rounds 7

All have random weights of DINOv3's size, and give the normed class token of images of 224
pixels. Models are compiled but on torch, and take turns, A B A B; the median of the ratios
of neighbours is told. Peers that are installed: transformers' and timm's DINOv3 on torch,
KerasHub's on the backend of KERAS_BACKEND. On a machine with other work, `--processor-time`
counts the seconds of all processors that the process itself used.
"""

import argparse
import statistics
import time
from functools import partial
from importlib.util import find_spec

import keras
import numpy as np

import keras_vit
from benchmarks.timing import seconds
from keras_vit.presets import PRESETS

TIMM = {"ViTS16": "small", "ViTB16": "base", "ViTL16": "large"}


def main():
    """Times the pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=TIMM, default="ViTB16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processor-time", action="store_true")
    args = parser.parse_args()
    config = {**PRESETS[f"{args.model}.dinov3"].config(), "image_size": 224}
    images = np.random.default_rng(0).uniform(-1, 1, (args.batch_size, 224, 224, 3))
    images = images.astype("float32")
    ours = keras_vit.VisionTransformer(**config)
    plain = keras_vit.VisionTransformer(**{**config, "rope": None})
    print(f"{args.model} on {keras.backend.backend()}, batches of {args.batch_size}")
    print("seconds of it, of ours, ratio (median, range)")
    clock = time.process_time if args.processor_time else time.perf_counter
    own = keras_call(ours, images)
    for name, run in contenders(args.model, plain, config, images).items():
        compare(name, run, own, args.rounds, clock)
    trained = [training(model, images) for model in (plain, ours)]
    compare("without rotary positions, training", *trained, args.rounds, clock)


def contenders(name, plain, config, images):
    """Name → call of a model that is compared with ours."""
    found = {"without rotary positions": keras_call(plain, images)}
    if keras.backend.backend() == "torch":
        if find_spec("transformers"):
            found["transformers"] = torch_call(transformers_model(config), images)
        if find_spec("timm"):
            import timm

            model = timm.create_model(
                f"vit_{TIMM[name]}_patch16_dinov3_qkvb", img_size=224, global_pool="token"
            )
            found["timm"] = torch_call(model, images)
    if find_spec("keras_hub"):
        found["KerasHub"] = keras_call(keras_hub_model(config), images)
    return found


def transformers_model(config):
    """DINOv3ViTModel of the size of a config."""
    import transformers

    sizes = transformers.DINOv3ViTConfig(
        hidden_size=config["hidden_dim"],
        intermediate_size=config["mlp_dim"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=config["num_heads"],
        num_register_tokens=config["num_registers"],
        image_size=224,
    )
    return transformers.DINOv3ViTModel(sizes)


def keras_hub_model(config):
    """KerasHub's backbone of the size of a config."""
    import keras_hub

    return keras_hub.models.DINOV3Backbone(
        patch_size=16,
        num_layers=config["num_layers"],
        hidden_dim=config["hidden_dim"],
        num_heads=config["num_heads"],
        intermediate_dim=config["mlp_dim"],
        num_register_tokens=config["num_registers"],
        use_key_bias=False,
        apply_layernorm=True,
        image_shape=(224, 224, 3),
    )


def keras_call(model, images):
    """A call of a Keras model, compiled (on TensorFlow, too) and warm."""
    model.jit_compile = keras.backend.backend() != "torch"
    call = partial(model.predict_on_batch, images)
    call()
    return call


def training(model, images):
    """A step of SGD towards zeros, compiled and warm."""
    jit_compile = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.SGD(1e-3, 0.9), "mse", jit_compile=jit_compile)
    zeros = np.zeros((len(images), *model.output_shape[1:]), "float32")
    call = partial(model.train_on_batch, images, zeros)
    call()
    return call


def torch_call(model, images):
    """A call of a torch module without gradients, warm."""
    import torch

    model.eval()
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def call():
        with torch.inference_mode():
            model(pixels)

    call()
    return call


def compare(name, run, own, rounds, clock):
    """Prints medians of both, and of the ratios of pairs."""
    pairs = [(seconds(run, clock), seconds(own, clock)) for _ in range(rounds)]
    ratios = [theirs / ours for theirs, ours in pairs]
    theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
    print(f"{name:36} {theirs:7.3f} {ours:7.3f}  {spread}", flush=True)


if __name__ == "__main__":
    main()
