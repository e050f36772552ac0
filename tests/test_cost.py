"""Multiply-accumulates and memory, beside what each backend counts of the same model."""

import copy
import math
import re

import keras
import numpy as np
import pytest
from helpers import TINY, tiny

import keras_vit
from keras_vit.cost import cost
from keras_vit.layers.initial_values import waiting_for_values
from keras_vit.models.sizes import BITS, HYBRIDS, architecture_fields, count_parameters
from keras_vit.presets import PRESETS

BACKEND = keras.backend.backend()
WITHIN = 0.02  # of what a backend says

# So wide that blocks and not images take the most memory.
VIT = {**TINY, "hidden_dim": 96, "mlp_dim": 384, "classes": 10}
HYBRID = {**VIT, "image_size": 64, "patch_size": 1, "stem": {"num_units": (2, 1, 1)}}
ROOT = {**VIT, "image_size": (40, 72), "patch_size": 2, "stem": {"num_units": ()}}
BIT = {"image_size": 64, "num_units": (2, 1, 1), "classes": 10}
SMALL = {
    "token": VIT,
    "every token in the last block": {**VIT, "full_last_block": True},
    "one block": {**VIT, "num_layers": 1},
    "merged": {**VIT, "num_layers": 3, "merged_tokens": (3, 2, 2)},
    "merged, every token": {
        **{**VIT, "image_size": (48, 64), "patch_size": 4, "merged_tokens": 60},
        **{"pooling": "gap", "num_registers": 3, "full_last_block": True},
    },
    "many tokens": {**VIT, "image_size": (48, 64), "patch_size": 4},
    "mean": {**VIT, "pooling": "gap", "include_preprocessing": True},
    "map": {**VIT, "pooling": "map", "mlp": "quick_gelu", "image_size": (32, 64)},
    "map of every token": {
        **{**VIT, "pooling": "map", "pooling_prefix": True, "class_token": True},
        **{"pooling_num_heads": 8, "pooling_mlp_dim": 200},
    },
    "mean of every token": {**VIT, "pooling": "gap", "pooling_prefix": True},
    "class token and mean": {**VIT, "pooling": "token_gap", "fc_norm": True},
    "query": {**VIT, "pooling": "query", "pooling_num_heads": 8, "qkv_bias": False},
    "distilled": {**VIT, "distilled": True, "num_registers": 2},
    "features of a distilled model": {**VIT, "distilled": True, "classes": 0},
    "without a final norm": {**VIT, "final_norm": False},
    "every token": {**VIT, "pooling": None, "classes": 0, "layer_scale": 0.1},
    "registers": {**VIT, "num_registers": 4, "qk_norm": True, "num_heads": 3},
    "swiglu": {**VIT, "mlp": "swiglu", "pre_norm": True, "qkv_bias": False},
    "geglu": {**VIT, "mlp": "geglu", "pooling": "map", "position": "sincos2d"},
    "pre_logits": {**VIT, "representation_size": 64, "fc_norm": True},
    "large patches": {**VIT, "patch_size": (32, 16), "include_preprocessing": True},
    "grey": {**VIT, "input_shape": (1, 32, 32), "data_format": "channels_first"},
    "rms": {**VIT, "norm": "rms", "patch_norm": True, "qk_norm": True, "mlp_bias": False},
    "rms, norms after": {**VIT, "norm": "rms", "norm_after": True, "layer_scale": 0.1},
    "norms after": {**VIT, "norm_after": True, "projection_bias": False, "pooling": "gap"},
    "learned2d": {**VIT, "position": "learned2d", "image_size": (32, 48)},
    "positions of each layer": {**VIT, "position_at": "each_layer", "distilled": True},
    "positions of all layers": {
        **{**VIT, "position_at": "each_layer_shared", "pooling": "gap"},
        **{"position": "learned2d", "image_size": (48, 64), "patch_size": 4},
    },
    "relative": {**VIT, "position": "relative", "image_size": (32, 48), "fc_norm": True},
    "relative, mean": {**VIT, "position": "relative", "patch_size": 4, "pooling": "gap"},
    "relative keys": {**VIT, "position": "relative_key", "image_size": (32, 48)},
    "rotary": {**VIT, "rope": "dinov3", "position": "none", "pooling": "gap"},
    "rotary, neighbours": {**VIT, "rope": "axial", "num_heads": 3, "qk_norm": True},
    "rotary, learned": {**VIT, "rope": "mixed", "image_size": (48, 64), "patch_size": 4},
    "sub-LN": {
        **{**VIT, "mlp": "swiglu", "qkv_bias": "qv", "pooling": "gap"},
        **{"attention_sub_norm": True, "mlp_sub_norm": True},
    },
    "hybrid": HYBRID,
    "hybrid, odd sides": {**HYBRID, "image_size": (75, 104)},
    "root alone": ROOT,
    "bit": BIT,
    "bit, odd sides": {**BIT, "image_size": (45, 70), "width_factor": 0.5},
    "bit, the map": {**BIT, "pooling": None, "classes": 0, "include_preprocessing": True},
}


def published(architecture, image_size=224):
    return {"image_size": image_size, **architecture_fields(architecture), "classes": 1000}


def build(config, **options):
    """The model of a config, whose weights are zeros."""
    name = "BiTResNet" if "num_units" in config else "VisionTransformer"
    with waiting_for_values():
        return getattr(keras_vit, name)(**config, **options)


def zeros(model, batch_size):
    return np.zeros((batch_size, *model.input_shape[1:]), "float32")


def only(backend):
    """A test of a backend's own analysis; torch's are in the run of torch alone."""
    skip = pytest.mark.skipif(backend != BACKEND, reason=f"an analysis of {backend}'s")
    if backend == "torch":
        return lambda test: pytest.mark.one_backend(skip(test))
    return skip


# torch


@pytest.fixture
def without_gradients():
    """torch's modes, which fail where parameters want gradients."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        yield


def torch_flops(model, images):
    """torch's count, without fused attention on the CPU, which it does not count."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model.trainable = False
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(images)
    return counter.get_total_flops()


@only("torch")
@pytest.mark.parametrize("name", SMALL)
def test_multiply_accumulates_are_torchs(name, without_gradients):
    model = build(SMALL[name])
    flops = torch_flops(model, zeros(model, 3))
    assert flops == 2 * cost(SMALL[name], batch_size=3).multiply_accumulates


@only("torch")
@pytest.mark.parametrize("name", ["ViTB16", "R26ViTS32", "BiTR50x1"])
def test_multiply_accumulates_of_published_sizes_are_torchs(name, without_gradients):
    config = published(name)
    model = build(config)
    flops = torch_flops(model, zeros(model, 1))
    assert flops == 2 * cost(config).multiply_accumulates


def torch_peak(model, images, flash_attention):
    """Largest size of the tensors that depend on the images, from when one is written
    until it is last read, over the operations that torch runs.

    Everything is kept until the end, so that no address is given twice.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode

    written, read, size, kept = {}, {}, {}, []

    def note(tensors, step):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            kept.append(storage)
            written.setdefault(storage.data_ptr(), step)
            read[storage.data_ptr()] = step
            size[storage.data_ptr()] = storage.nbytes()

    class Operations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            outputs = operation(*args, **(kwargs or {}))
            inputs, outputs_ = map(tensors_of, ((args, kwargs), outputs))
            self.count += 1
            known = [t for t in inputs if t.untyped_storage().data_ptr() in written]
            note(known + outputs_ * bool(known), self.count)
            return outputs

    def tensors_of(tree):
        leaves = torch.utils._pytree.tree_leaves(tree)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    images = torch.from_numpy(images)
    note([images], 0)
    kernel = SDPBackend.FLASH_ATTENTION if flash_attention else SDPBackend.MATH
    with sdpa_kernel(kernel), Operations() as operations:
        model(images)
    growth = np.zeros(operations.count + 2, "int64")
    for storage in written:
        growth[written[storage]] += size[storage]
        growth[read[storage] + 1] -= size[storage]
    return growth.cumsum().max()


@only("torch")
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", SMALL)
def test_peak_memory_is_torchs(name, dtype, without_gradients):
    model = build(SMALL[name], dtype=dtype)
    for flash_attention in (False, True):
        measured = torch_peak(model, zeros(model, 3), flash_attention)
        options = {"batch_size": 3, "dtype": dtype, "flash_attention": flash_attention}
        expected = cost(SMALL[name], **options).peak_activation_bytes
        assert measured == pytest.approx(expected, rel=WITHIN)


@only("torch")
@pytest.mark.parametrize(
    ("name", "image_size", "flash_attention"),
    [
        ("ViTB16", 224, True),  # the most in the MLPs
        ("ViTB16", (384, 224), False),  # in the scores
        ("R26ViTS32", 224, True),  # in the first stage
        ("BiTR50x1", 224, True),
    ],
)
def test_peak_memory_of_published_sizes_is_torchs(
    name, image_size, flash_attention, without_gradients
):
    config = published(name, image_size)
    model = build(config)
    measured = torch_peak(model, zeros(model, 1), flash_attention)
    expected = cost(config, flash_attention=flash_attention).peak_activation_bytes
    assert measured == pytest.approx(expected, rel=WITHIN)


# JAX, TensorFlow


@only("jax")
@pytest.mark.parametrize(
    ("name", "image_size", "batch_size"),
    [
        ("ViTB16", 224, 2),
        ("ViTL16", (384, 512), 1),
        ("R50ViTB16", 224, 1),
        ("BiTR152x4", (480, 384), 2),
    ],
)
def test_flops_are_jaxs(name, image_size, batch_size, monkeypatch):
    """XLA also counts norms, activations and kernels' standardisation too."""
    import jax

    # Of a loop it counts one turn: attention in parts is one.
    monkeypatch.setattr("keras_vit.layers.kernels.jax.LARGE", math.inf)
    config = published(name, image_size)
    with keras.StatelessScope(initialize_variables=False):
        model = build(config)
    try:
        variables = model.trainable_variables, model.non_trainable_variables
        images = jax.ShapeDtypeStruct((batch_size, *model.input_shape[1:]), "float32")
        shapes = [[jax.ShapeDtypeStruct(v.shape, v.dtype) for v in vs] for vs in variables]
        flops = (
            jax.jit(model.stateless_call).lower(*shapes, images).cost_analysis()["flops"]
        )
    finally:
        keras.utils.clear_session()  # forgets the weights that have no values
    ours = 2 * cost(config, batch_size=batch_size).multiply_accumulates
    assert flops == pytest.approx(ours, rel=WITHIN)
    assert flops > ours


@only("tensorflow")
@pytest.mark.parametrize(
    ("name", "operation", "parts"),
    [
        pytest.param(
            "ViTB16",
            "MatMul",
            ["patch_embedding", "attention_projections", "mlp", "head"],
            marks=pytest.mark.skipif(
                keras.__version__.startswith("3.14."),
                reason="Keras 3.14 multiplies patches by another operation, BatchMatMulV2",
            ),
        ),
        ("BiTR50x1", "Conv2D", ["root", *(f"stage_{i}" for i in range(4))]),
    ],
)
def test_flops_are_tensorflows(name, operation, parts):
    import tensorflow as tf

    config = published(name, (384, 320))
    model = build(config)
    call = tf.function(lambda images: model(images, training=False))
    graph = call.get_concrete_function(tf.TensorSpec((1, 384, 320, 3))).graph
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder.float_operation()
    options = profiler.ProfileOptionBuilder(options).with_empty_output().build()
    node, flops = profiler.profile(graph, cmd="op", options=options), {}
    while node.children:  # one within the other, each with the sum of those inside
        (child,) = node.children
        flops[node.name] = node.total_float_ops - child.total_float_ops
        node = child
    flops[node.name] = node.total_float_ops
    ours = cost(config).multiply_accumulates_by_part
    assert flops[operation] == 2 * sum(ours[part] for part in parts)


# What every backend has in common.

pure = pytest.mark.one_backend


@pure
def test_parts_of_a_cost():
    """ViT-B/16, by hand."""
    parts = cost(published("ViTB16"), batch_size=2).multiply_accumulates_by_part
    tokens, width, last = 197, 768, 1  # the last block computes the class token alone
    every = 11 * tokens + last
    assert parts == {
        "patch_embedding": 2 * 196 * 16 * 16 * 3 * width,
        "attention_projections": 2 * (2 * every + 2 * 12 * tokens) * width**2,
        "attention_scores": 2 * 2 * every * tokens * width,
        "mlp": 2 * 2 * every * width * 4 * width,
        "head": 2 * width * 1000,
    }
    full = cost({**published("ViTB16"), "full_last_block": True})
    others = 196 * width * (2 * width + 2 * tokens + 2 * 4 * width)
    assert full.multiply_accumulates == sum(parts.values()) // 2 + others
    by_stage = cost(published("BiTR50x1")).multiply_accumulates_by_part
    assert list(by_stage) == ["root", *(f"stage_{i}" for i in range(4)), "head"]


@pure
@pytest.mark.parametrize("name", ["token", "map", "hybrid", "bit"])
def test_costs_grow_with_the_batch(name):
    one, five = (cost(SMALL[name], batch_size=n) for n in (1, 5))
    assert five.multiply_accumulates == 5 * one.multiply_accumulates
    assert five.peak_activation_bytes == 5 * one.peak_activation_bytes
    assert five.parameters == one.parameters


@pure
@pytest.mark.parametrize("name", SMALL)
def test_parameters_are_the_models(name):
    assert cost(SMALL[name]).parameters == build(SMALL[name]).count_params()


@pure
def test_a_cost_at_another_image_size_is_that_of_the_model_of_that_size():
    for config in (VIT, HYBRID, BIT, SMALL["every token"]):
        other = {**config, "image_size": (64, 96)}
        assert cost(config, image_size=(64, 96)) == cost(other)
    grey = {"input_shape": (1, 64, 96), "data_format": "channels_first"}
    other = {**VIT, "image_size": (64, 96), **grey}
    assert cost(SMALL["grey"], image_size=(64, 96)) == cost(other)


@pure
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, r"divisible by `patch_size`.*\(100, 100\)"),
        ({"image_size": 0}, "`image_size` must be a positive integer.*image_size=0"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer.*batch_size=0"),
        ({"dtype": "int8"}, "`dtype` must be one of 'float32'.*dtype='int8'"),
    ],
)
def test_costs_of_what_there_is_not(options, message):
    for source in ("ViTB16", "ViTB16.imagenet21k"):
        with pytest.raises(ValueError, match=message):
            keras_vit.describe(source, **options)


# describe


def test_description_of_a_model():
    config = {**SMALL["map"], "name": "mine"}
    model = build(config, dtype="mixed_bfloat16")
    description = keras_vit.describe(model, image_size=64, batch_size=4)
    expected = cost(config, image_size=64, batch_size=4, dtype="bfloat16")
    assert description.parameters == expected.parameters
    assert description.multiply_accumulates == expected.multiply_accumulates
    assert description.peak_activation_bytes == expected.peak_activation_bytes
    parts = description.multiply_accumulates_by_part
    assert sum(parts.values()) == description.multiply_accumulates
    text = str(description)
    assert re.search(r"^name +mine$", text, re.MULTILINE)
    assert re.search(
        r"^cost of +4 images of 64 × 64 pixels in bfloat16$", text, re.MULTILINE
    )
    assert re.search(rf"^  pooling +{parts['pooling']:,}$", text, re.MULTILINE)
    mebibytes = expected.peak_activation_bytes / 2**20
    assert re.search(rf"^peak activation memory +{mebibytes:.1f} MiB$", text, re.MULTILINE)


@pure
def test_description_of_an_architecture():
    for name in ("ViTB16", *HYBRIDS, *BITS):
        description = keras_vit.describe(name, image_size=(256, 320))
        config = {**published(name), "image_size": (256, 320)}
        assert description.parameters == count_parameters(**config)
        assert description.multiply_accumulates == cost(config).multiply_accumulates
        assert description.name == name
        assert (description.preset, description.recipe) == (None, None)
        assert description.config()["classes"] == 1000
        assert copy.deepcopy(description).image_size == (256, 320)
        with pytest.raises(AttributeError, match="no attribute 'license'"):
            description.license  # noqa: B018


@pure
def test_description_of_every_preset_has_its_cost():
    for row in PRESETS.values():
        description = keras_vit.describe(row)
        assert description.parameters == row.parameters
        assert description.multiply_accumulates > row.parameters
        assert description.config() == row.config()
    larger = keras_vit.describe("ViTB16.imagenet21k", image_size=384)
    assert larger.parameters == larger.preset.parameters + (24**2 - 14**2) * 768
    assert f"parameters               {larger.parameters:,}\n" in str(larger)
    assert larger.resolution == 224


@pytest.mark.one_backend
@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_a_description_says_what_is_absent_and_says_it_once(dtype):
    lines = str(keras_vit.describe(tiny(name="mine", dtype=dtype))).split("\n")
    table = [line.split(maxsplit=1) for line in lines]
    assert [line for line in table if line[0] == "name"] == [["name", "mine"]]
    assert ["dtype", dtype or "float32"] in table
    assert ["layer_scale", "none"] in table
    assert not any("unknown" in line or "{" in line for line in lines)


@pure
def test_describe_takes_nothing_else():
    model = keras.Sequential(name="other")
    with pytest.raises(ValueError, match="takes a name.*Received: <Sequential name=other"):
        keras_vit.describe(model)
    with pytest.raises(ValueError, match="name of an architecture, such as 'ViTB16'"):
        keras_vit.describe("ViTX16")


@pure
def test_describe_on_the_command_line(capsys):
    from keras_vit.cli import main

    options = ["--image-size", "384", "512", "--batch-size", "8", "--dtype", "bfloat16"]
    assert main(["describe", "R50ViTB16", *options, "--flash-attention"]) == 0
    expected = keras_vit.describe(
        "R50ViTB16",
        image_size=(384, 512),
        batch_size=8,
        dtype="bfloat16",
        flash_attention=True,
    )
    assert capsys.readouterr().out == f"{expected}\n"
    assert "8 images of 384 × 512 pixels in bfloat16" in str(expected)
    assert main(["describe", "BiTR50x1", "--image_size", "160"]) == 0
    assert "160 × 160" in capsys.readouterr().out
    assert main(["describe", "ViTB16", "--image-size", "100"]) == 2
    assert "divisible by `patch_size`" in capsys.readouterr().err
