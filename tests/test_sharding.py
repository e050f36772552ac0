"""Weights split over several devices: what is computed, where it is, what is refused."""

import json
import math
import os
import subprocess
import sys

import keras
import pytest
from helpers import PROGRAMS, path_of, tiny
from sharded import COMMANDS, NAMES, OF_OTHERS
from trainings import TRAININGS, check_runs
from uneven import HAS_TORCH

import keras_vit
from keras_vit.distribution.layouts import MIN_SIZE, ShardedWeights

DEVICES = "--xla_force_host_platform_device_count=8"
# Of the weights under each strategy.
QKV = {
    "fully_sharded": ["batch", None, None, None],
    "tensor_parallel:4": [None, None, "model", None],
    "fully_sharded:4": ["batch", None, "model", None],
}
DENSE_2 = {
    "fully_sharded": ["batch", None],
    "tensor_parallel:4": ["model", None],
    "fully_sharded:4": ["model", "batch"],
}
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras splits weights on JAX alone"
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Results of programs/sharded.py on eight virtual devices."""
    folder = tmp_path_factory.mktemp("sharded")
    done = subprocess.run(
        [sys.executable, PROGRAMS / "sharded.py", folder],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return {"folder": folder, **json.loads((folder / "seen.json").read_text())}


@on_jax
@pytest.mark.parametrize("name", ["data_parallel", "fully_sharded:4"])
def test_self_distillation_learns_as_on_one_device(seen, name):
    """With centre and teacher, which no gradient reaches."""
    assert seen["self-distilled"][name]["learned"] > 0.1
    assert seen["self-distilled"][name]["distance"] <= 1e-5


@on_jax
@pytest.mark.parametrize("name", ["data_parallel", *NAMES])
def test_initial_values_are_those_of_one_device(seen, name):
    assert seen["initial"][name] == 0


@on_jax
@pytest.mark.parametrize("name", NAMES)
def test_training_is_that_of_one_device(seen, name):
    """With dropout, clipping, accumulation, weight decay and averaged weights."""
    run = seen["float32"][name]
    assert run["moved"] > 1e-2  # there was something to get wrong
    assert run["loss"] <= 1e-5
    assert run["weights"] <= 1e-5
    assert run["slots"] <= 1e-5


@on_jax
def test_training_in_bfloat16_is_nearly_that_of_one_device(seen):
    run = seen["bfloat16"]["fully_sharded:4"]
    assert run["moved"] > 1e-2
    assert run["loss"] <= 0.02
    # Adam divides by the root of squares: a gradient near 0 may change its sign.
    assert run["weights"] <= 0.02


@on_jax
def test_a_student_learns_of_its_teacher_as_on_one_device(seen):
    assert seen["taught"]["learned"] > 0.1
    assert max(seen["taught"]["distances"]) <= 1e-5


@on_jax
@pytest.mark.parametrize("name", NAMES)
def test_each_weight_and_what_the_optimizer_keeps_of_it_is_where_it_should_be(seen, name):
    run = seen["float32"][name]
    weights, slots = run["specs"], run["slot specs"]
    assert weights["block_0/attention/qkv/kernel"] == QKV[name]
    assert weights["block_0/mlp/dense_2/kernel"] == DENSE_2[name]
    assert not any(weights["block_0/attention_norm/gamma"])
    assert not any(weights["block_0/mlp/dense_2/bias"])
    kinds = ("momentum", "velocity", "average", "gradient_accumulator")
    for path, axes in weights.items():
        for kind in kinds:
            assert slots[f"adam/{path.replace('/', '_')}_{kind}"] == axes


@on_jax
def test_tensor_parallelism_splits_heads_and_the_middle_of_each_pair(seen):
    weights = seen["float32"]["tensor_parallel:4"]["specs"]
    split = {path: axes for path, axes in weights.items() if any(axes)}
    assert split == {
        "block_0/attention/qkv/kernel": [None, None, "model", None],
        "block_0/attention/qkv/bias": [None, "model", None],
        "block_0/attention/projection/kernel": ["model", None, None],
        "block_0/mlp/dense_1/kernel": [None, "model"],
        "block_0/mlp/dense_1/bias": ["model"],
        "block_0/mlp/dense_2/kernel": ["model", None],
        "pre_logits/kernel": [None, "model"],
        "pre_logits/bias": ["model"],
        "head/kernel": ["model", None],
    }


@on_jax
def test_tensor_parallelism_gathers_nothing(seen):
    """In the compiled step of a training there are all-reduces alone.

    For each of two blocks two forward and two backward, and those of the embedding, the
    head, the gradients over the batch, their norm, and the loss; XLA joins some.
    """
    run = seen["tensor collectives"]
    print(run["counts"])
    assert run["counts"].keys() == {"all-reduce"}
    assert run["counts"]["all-reduce"] <= 12


@on_jax
def test_fully_sharded_gathers_weights_and_no_images(seen):
    run = seen["sharded collectives"]
    print(run["counts"])
    assert run["counts"].keys() <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert len(run["gathered"]) >= 11  # of the large weights of two blocks
    assert set(run["gathered"]) <= set(run["weights"])


@on_jax
def test_what_is_saved_under_one_strategy_loads_under_another_and_trains_on(seen):
    run = seen["loaded"]
    assert list(run["ways"]) == [
        "none -> fully_sharded",
        "fully_sharded -> none",
        "none -> tensor_parallel:2",
        "tensor_parallel:2 -> fully_sharded:4",
        "fully_sharded:4 -> fully_sharded:4",
    ]
    for way, files in run["ways"].items():
        before, name = way.split(" -> ")
        for weights, outputs in files.values():
            assert weights == 0, way
            assert outputs <= (0 if name == before else 1e-6), way
    assert run["moved"] > 1e-2
    assert max(run["loss"], run["weights"], run["slots"]) <= 1e-5


@on_jax
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in OF_OTHERS for name in OF_OTHERS[kind]]
)
def test_training_of_other_models_is_that_of_one_device(seen, kind, name):
    run = seen["others"][kind][name]
    assert run["moved"] > 1e-2
    assert run["loss"] <= 1e-5
    assert run["weights"] <= 1e-5


@on_jax
def test_weights_of_other_models_are_where_they_should_be(seen):
    others = seen["others"]
    of = {kind: run["tensor_parallel:4"]["specs"] for kind, run in others.items()}
    lora, unit = of["lora"], of["bit"]
    assert lora["block_0/attention/qkv/lora_kernel_a"] == [None, None, "model", None]
    assert not any(lora["block_0/attention/qkv/lora_kernel_b"])
    assert lora["block_0/mlp/dense_1/lora_kernel_b"] == [None, "model"]
    assert lora["block_0/mlp/dense_2/lora_kernel_a"] == ["model", None]
    assert lora["pooling/attention/qkv/kernel"] == [None, None, "model", None]
    assert unit["stage_0_unit_0/conv_1/kernel"] == [None, None, None, "model"]
    for name in ("conv_2", "conv_3", "shortcut_conv"):
        assert unit[f"stage_0_unit_0/{name}/kernel"] == [None, None, "model", None]
        path = f"stem_stage_0_unit_0/{name}/kernel"
        assert of["hybrid"][path] == [None, None, "model", None]
    assert not any(lora["registers/tokens"] + lora["position_embedding/grid"])
    both = others["lora"]["fully_sharded:4"]["specs"]
    assert both["position_embedding/grid"] == [None, None, "batch"]
    assert both["patch_embedding/kernel"] == [None, None, None, "batch"]


@on_jax
@pytest.mark.parametrize("name", TRAININGS)
def test_a_killed_training_goes_on_bit_for_bit(seen, name):
    """By `finetune`, with dropout, clipping, averages; from within an update."""
    run = seen["killed"][name]
    assert run["different"] == []
    assert run["said"] == []
    assert run["from one device"] <= 1e-5  # also of the losses; 5 images are evaluated


@on_jax
def test_a_training_goes_on_under_another_strategy_and_says_so(seen):
    run = seen["killed"]["crossed"]
    assert run["from one device"] <= 1e-5
    assert "not bit for bit" in run["said"][0]
    assert (
        "devices: '8 × cpu (fully_sharded: batch 4, model 2)' in the checkpoint, "
        "'8 × cpu (tensor_parallel: batch 4, model 2)' now"
    ) in run["said"][0]
    assert len(run["said"]) == 1


@on_jax
def test_the_command_trains_under_each_strategy_and_predicts_on_one_device(seen):
    """With accumulation and averages; fully sharded it is ended, and given again."""
    check_runs(seen["folder"], seen["folder"], seen["commands"], COMMANDS)
    assert seen["commands"]["ended"][0] == 75
    assert "resumes after step 3" in seen["commands"]["fully_sharded"][1]
    assert seen["commands"]["again"][0] == 2


@on_jax
def test_rows_that_do_not_divide_are_trained_on_and_scored_as_on_one_device(seen):
    """With each number of rows left, kind of data, reduction, and batch by batch."""
    found = seen["uneven"]["kinds"]
    assert len(found) == 22 + HAS_TORCH
    assert max(found.values()) <= 1e-5, found


@on_jax
@pytest.mark.parametrize("name", NAMES)
def test_a_vit_is_trained_on_rows_that_do_not_divide(seen, name):
    assert seen["uneven"]["strategies"][name] <= 1e-5


@on_jax
@pytest.mark.parametrize("name", ["fit", "evaluate", "predict"])
def test_a_model_has_its_weights_after_an_error_of_the_data(seen, name):
    message, distance = seen["uneven"]["after errors"][name]
    assert "no such image" in message
    assert distance == 0


@on_jax
@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "heads": "'block_0/attention/qkv/kernel' of shape (32, 3, 4, 8), with 4 heads in "
        "dimension 2. Use a `model_axis` that divides them",
        "axis": "Received: 8 devices, model_axis=3",
        "one": "Received: model_axis=1. Use data_parallel() or fully_sharded().",
        "no rule": "Received: 'mine/kernel' of shape (32, 512), which has no rule. Shard it, "
        "such as layouts={'mine/kernel': (None, 'model')}",
        "uneven": "'mine/kernel' of shape (32, 510), with 510 numbers in dimension 1",
        "no dimension": "'patch_embedding/kernel' of shape (4, 4, 3, 36) has no dimension "
        "that the 8 devices of the axis 'batch' divide",
        "pattern": "Received: 'mine/kernel', which matches none",
        "outside": "Received: 'patch_embedding/kernel' and 20 more, built without it",
        "keras large": "without a pattern for 'block_0/attention/qkv/kernel' of shape (32, 3, "
        "4, 8), which is replicated",
        "keras pattern": "Received: 'dense_1/kernel', which matches none",
        "slots": "/block_0_mlp_dense_1_kernel_velocity' as P(None, None), "
        "'block_0/mlp/dense_1/kernel' as P(None, 'model')",
        "divide": "Received: batch_size (or micro_batch_size) 9 for 8 devices",
        "mirrored": "mirrored() is for KERAS_BACKEND=tensorflow. Received: the backend jax",
        "colon": "Received: 'data_parallel:4'",
        "no number": "Received: 'tensor_parallel'. Add it: 'tensor_parallel:4'.",
    }.items(),
)
def test_mistakes_are_errors(seen, mistake, message):
    assert message in seen["errors"][mistake]


@on_jax
def test_a_layer_of_ones_own_is_split_as_is_said(seen):
    assert seen["errors"]["ruled"] is None


def sharded(*shape, **options):
    """On devices that nothing asks for."""
    devices = [f"cpu:{i}" for i in range(math.prod(shape))]
    names = ("batch", "model")[: len(shape)]
    mesh = keras.distribution.DeviceMesh(shape, names, devices)
    return ShardedWeights(mesh, **options)


@pytest.mark.one_backend
@pytest.mark.skipif(
    keras.__version__.startswith("3.14.") and keras.backend.backend() != "jax",
    reason="Keras 3.14 makes a distribution of weights on JAX alone",
)
@pytest.mark.parametrize(
    "build",
    [
        lambda: keras_vit.ViTB16(weights=None, num_layers=1, classes=102),
        lambda: keras_vit.ViTL16(weights=None, num_layers=1, representation_size=1024),
        lambda: tiny(
            hidden_dim=1024, num_heads=16, mlp_dim=4096, pooling="map", mlp="swiglu"
        ),
        lambda: tiny(hidden_dim=512, num_heads=16, mlp_dim=1024, pooling="query"),
        lambda: tiny(
            **{"image_size": 34, "patch_size": 1, "position": "relative"},
            **{"hidden_dim": 512, "num_heads": 16, "mlp_dim": 1024, "num_layers": 1},
        ),
        lambda: tiny(patch_size=1, hidden_dim=768, stem={"num_units": [1, 1]}),
        lambda: keras_vit.BiTResNet(32, (1, 1, 1, 1), 2, classes=1000),
    ],
)
def test_no_large_weight_stays_whole(build):
    """Usual sizes, with the usual threshold."""
    shapes = {path_of(weight): tuple(weight.shape) for weight in build().weights}
    large = {path for path, shape in shapes.items() if math.prod(shape) >= MIN_SIZE}
    assert len(large) >= 5
    for mesh, by_batch in (((8,), True), ((4, 4), False), ((16, 4), True)):
        distribution = sharded(*mesh, shard_batch_axis=by_batch)
        axes = {path: distribution.axes(path, shape) for path, shape in shapes.items()}
        whole = {path for path in large if not any(axes[path])}
        embeddings = {"patch_embedding/kernel", "position_embedding/grid"}
        assert whole <= (set() if by_batch else embeddings)
        for path, shape in shapes.items():
            assert len(axes[path]) == len(shape)
            for n, axis in zip(shape, axes[path], strict=True):
                assert axis is None or n % distribution.axis_sizes[axis] == 0


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
@pytest.mark.parametrize("name", ["fully_sharded", "fsdp:2", "tensor_parallel:2"])
def test_a_backend_that_cannot_says_what_to_do(name):
    with pytest.raises(
        ValueError, match=r"is for KERAS_BACKEND=jax.*Use data_parallel\(\)"
    ):
        keras_vit.distribution.strategy(name)


def test_auto_is_nothing_on_one_device():
    assert keras_vit.distribution.auto() is None
    keras_vit.distribution.check(tiny(num_layers=1))
