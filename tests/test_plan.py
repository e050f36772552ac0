"""Plans for devices that are not here: what is compiled, counted, predicted, refused."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest
from helpers import PROGRAMS

from keras_vit.cli import main
from keras_vit.planning import (
    CHIPS,
    Collective,
    Program,
    Target,
    collectives,
    moved_bytes,
    plan,
    roofline,
    target,
)
from keras_vit.planning.advice import advice
from keras_vit.planning.plan import Memory
from keras_vit.planning.step import out_of_memory
from keras_vit.training import ViTPreTraining

DEVICES = "--xla_force_host_platform_device_count=8"
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX alone compiles for devices not here"
)
pure = pytest.mark.one_backend
GIB = 2**30
OBJECTIVE = ("--model", "ViTB16", "--objective", "masked_autoencoder")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Results of programs/planned.py on eight virtual devices."""
    folder = tmp_path_factory.mktemp("planned")
    done = subprocess.run(
        [sys.executable, PROGRAMS / "planned.py", folder],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "seen.json").read_text())


# The step.


@on_jax
@pytest.mark.parametrize("name", ["fsdp", "tensor_parallel:4"])
def test_what_is_planned_is_the_step_that_fit_runs(seen, name):
    """With dropout, accumulation, averages and rematerialization, to the letter."""
    run = seen["same"][name]
    assert run["lines"] > 1000
    assert run["text"]
    planned, real = run["bytes"]
    assert planned == real


@on_jax
@pytest.mark.parametrize(
    "name", ["masked_autoencoder", "masked_patch_prediction", "self_distillation"]
)
def test_what_is_planned_is_the_step_of_pretraining(seen, name):
    run = seen["pretraining"][name]
    assert run["lines"] > 500
    assert run["text"]
    summary = run["summary"]
    assert summary["objective"] == name
    # Eight images on eight devices; two operations each.
    assert summary["model_flops"] == 2 * run["operations"]
    memory, states = summary["memory"], summary["state_by_strategy"]
    assert memory["peak"] > 0
    kept = memory["weights"] + memory["optimizer"]
    assert states["data_parallel"] == pytest.approx(kept, abs=16)
    assert f"16 × 16 pixels, {name}, float32" in run["page"]


@on_jax
def test_no_value_is_computed_and_nothing_traced_is_left(seen):
    for run in seen["same"].values():
        assert run["values"] == ["ShapeDtypeStruct"]
    assert len(seen["after"][0][0]) == 8  # outputs of a model that was built after it
    assert seen["random"][0] == seen["random"][1]


@on_jax
def test_memory_is_that_of_each_strategy(seen):
    plans = {name: run["summary"] for name, run in seen["plans"].items()}
    states = plans["fsdp"]["state_by_strategy"]
    for name, run in plans.items():
        memory = run["memory"]
        state = states[name.replace("fsdp", "fully_sharded")]
        assert memory["weights"] + memory["optimizer"] == pytest.approx(state, abs=16)
        parts = ("weights", "optimizer", "batch", "temporaries", "program")
        assert memory["peak"] == sum(memory[part] for part in parts)
        images = run["images"] // run["mesh"]["batch"]
        assert memory["batch"] >= images * (16 * 16 * 3 + 8) * 4
        assert run["fits"] is None
    assert states["data_parallel"] > 5 * states["fully_sharded"]
    assert plans["fsdp"]["mesh"] == {"batch": 8}
    assert plans["tensor_parallel:4"]["mesh"] == {"batch": 2, "model": 4}


@on_jax
def test_collectives_are_those_of_each_strategy(seen):
    counts = {name: run["counts"] for name, run in seen["plans"].items()}
    assert counts["fsdp"]["all-gather"] >= 4  # of the block's kernels
    # No projection: what is gathered is the gradient of the pooled tokens, by the head.
    tensors = counts["tensor_parallel:4"]
    assert tensors["all-reduce"] >= 4  # two forward, two backward
    assert tensors.get("all-gather", 0) <= 1
    assert tensors.keys() <= {"all-reduce", "all-gather"}


@on_jax
def test_nothing_is_predicted_for_a_cpu(seen):
    run = seen["plans"]["fsdp"]
    assert run["summary"]["predicted"] is None
    assert "No times are predicted for a CPU" in run["text"]
    assert run["summary"]["flops"] > run["summary"]["model_flops"] > 0
    for title in ("memory of a device", "floating-point operations", "collectives of"):
        assert title in run["text"]
    assert "Nothing has run" in run["text"]
    assert "4 steps of 8 images" in run["text"]


@on_jax
@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "none": "The strategy 'none' uses one device. Received: cpu:8",
        "batch": "(or micro_batch_size) 12 for 8 devices",
        "many": "with 8 CPU devices. Received: cpu:9. Set XLA_FLAGS=--xla_force_host",
        "axis": "Received: 8 devices, model_axis=3",
    }.items(),
)
def test_mistakes_are_errors(seen, mistake, message):
    assert message in seen["errors"][mistake]


@on_jax
def test_what_a_compiler_refuses_is_no_error(seen):
    size, is_all, message = seen["refused"]
    assert (size, is_all) == (round(120.9 * GIB), False)
    assert message.endswith("HLO module: jit_train_step.")


# The text of a compiled program.

PROGRAM = """\
HloModule jit_train_step, is_scheduled=true

%add.clone (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %add.9 = f32[]{:T(128)} add(%x, %y)
}

%known_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %g = f32[8]{0} get-tuple-element(%p), index=1
  %all-to-all = f32[8]{0} all-to-all(%g), channel_id=7, replica_groups={{0,1,2,3}}
  ROOT %t = (s32[], f32[8]{0}) tuple(%g, %all-to-all)
}

%known_condition (p.1: (s32[], f32[8])) -> pred[] {
  %p.1 = (s32[], f32[8]{0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

%counting_body (p.2: (u32[], bf16[4,8])) -> (u32[], bf16[4,8]) {
  %two = u32[]{:T(128)} constant(2)
  %p.2 = (u32[], bf16[4,8]{1,0}) parameter(0)
  %n = u32[]{:T(128)} get-tuple-element(%p.2), index=0
  %m = bf16[4,8]{1,0} get-tuple-element(%p.2), index=1
  %collective-permute-start = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%m), channel_id=3, source_target_pairs={{0,1},{1,0}}
  %collective-permute-done = bf16[4,8]{1,0} collective-permute-done(%collective-permute-start)
  %piece.1 = bf16[64,8]{1,0} fusion(%m), kind=kCustom, calls=%piece_in_loop
  %next = u32[]{:T(128)} add(%n, %two)
  ROOT %t.2 = (u32[], bf16[4,8]{1,0}) tuple(%next, %collective-permute-done)
}

%counting_condition (p.3: (u32[], bf16[4,8])) -> pred[] {
  %p.3 = (u32[], bf16[4,8]{1,0}) parameter(0)
  %limit = u32[]{:T(128)} constant(7)
  %n.3 = u32[]{:T(128)} get-tuple-element(%p.3), index=0
  ROOT %less = pred[] compare(%n.3, %limit), direction=LT
}

%unknown_body (p.4: (u32[], f32[8])) -> (u32[], f32[8]) {
  %p.4 = (u32[], f32[8]{0}) parameter(0)
  %g.4 = f32[8]{0} get-tuple-element(%p.4), index=1
  %collective-broadcast = f32[8]{0} collective-broadcast(%g.4), replica_groups={{0,1}}
  ROOT %t.4 = (u32[], f32[8]{0}) tuple(%g.4, %collective-broadcast)
}

%unknown_condition (p.5: (u32[], f32[8])) -> pred[] {
  %p.5 = (u32[], f32[8]{0}) parameter(0)
  ROOT %c.5 = pred[] custom-call(%p.5)
}

%piece_in_loop (a: bf16[4,8]) -> bf16[64,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[64,8]{1,0} all-gather(%a), channel_id=9, replica_groups=mesh['x'=16,'y'=4] {'x'}, frontend_attributes={chain_id="1"}
}

%piece_after (b: bf16[4,8]) -> bf16[64,8] {
  %b = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.3 = bf16[64,8]{1,0} all-gather(%b), channel_id=9, replica_groups=mesh['x'=16,'y'=4] {'x'}, frontend_attributes={chain_id="1"}
}

%never (b.1: f32[8]) -> f32[8] {
  %b.1 = f32[8]{0} parameter(0)
  ROOT %all-gather.8 = f32[8]{0} all-gather(%b.1), replica_groups={{0,1}}
}

ENTRY %main.1_spmd (param.1: f32[4,8], param.2: bf16[4,8]) -> f32[] {
  %param.1 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %param.2 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %zero = u32[]{:T(128)} constant(0)
  %copied = u32[]{:T(128)} copy(%zero)
  %all-reduce = (f32[4,8]{1,0:T(8,128)}, /*index=1*/bf16[16]{0:T(1024)(128)(2,1)}) all-reduce(%param.1, %param.2), channel_id=1, replica_groups=[4,4]<=[16], to_apply=%add.clone, metadata={op_name="jit(train_step)/jvp(block_0)/mlp/dense_2/dot_general" stack_frame_id=1}
  %all-reduce.2-start = f32[10]{0} all-reduce-start(%param.1), replica_groups=[8,2]<=[2,8]T(1,0), to_apply=%add.clone
  %all-reduce.2-done = f32[10]{0} all-reduce-done(%all-reduce.2-start)
  %all-gather-start = (f32[4,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%param.1), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %reduce-scatter = f32[4]{0} reduce-scatter(%param.1), replica_groups={}, to_apply=%add.clone
  %reduce-scatter-start = ((f32[12]{0}, bf16[6]{0}), (f32[4]{0}, bf16[2]{0})) reduce-scatter-start(%param.1, %param.2), replica_groups={{0,1,2}}, to_apply=%add.clone
  %tuple.1 = (u32[], bf16[4,8]{1,0}) tuple(%copied, %param.2)
  %while.1 = (u32[], bf16[4,8]{1,0}) while(%tuple.1), condition=%counting_condition, body=%counting_body
  %tuple.2 = (s32[], f32[8]{0}) tuple(%zero, %param.1)
  %while.2 = (s32[], f32[8]{0}) while(%tuple.2), condition=%known_condition, body=%known_body, backend_config={"known_trip_count":{"n":"5"}}
  %while.3 = (u32[], f32[8]{0}) while(%tuple.2), condition=%unknown_condition, body=%unknown_body
  %last = bf16[64,8]{1,0} fusion(%param.2), kind=kCustom, calls=%piece_after
  ROOT %done = f32[] constant(0)
}
"""


@pure
def test_collectives_of_a_program():
    found = collectives(Program(PROGRAM), 16)
    assert {(c.kind, c.times, c.bytes, c.devices, c.at_least) for c in found} == {
        ("all-reduce", 1, 32 * 4 + 16 * 2, 4, False),
        ("all-reduce", 1, 40, 2, False),
        ("all-gather", 1, 16 * 8 * 4, 4, False),
        ("reduce-scatter", 1, 4 * 4 * 16, 16, False),
        ("reduce-scatter", 1, 12 * 4 + 6 * 2, 3, False),
        ("collective-permute", 4, 64, 16, False),  # 0, 2, 4, 6
        ("all-to-all", 5, 32, 4, False),
        ("collective-broadcast", 1, 32, 2, True),
        ("all-gather", 1, 64 * 8 * 2, 16, False),  # one, in and after a loop
    }
    assert len(found) == 9
    (named,) = (c for c in found if c.operation)
    assert named.operation == "jit(train_step)/jvp(block_0)/mlp/dense_2/dot_general"


@pure
@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-reduce", 2 * 3 * 600),
        ("all-gather", 3 * 600),
        ("reduce-scatter", 3 * 600),
        ("all-to-all", 3 * 600),
        ("collective-permute", 4 * 600),
    ],
)
def test_bytes_that_a_device_sends(kind, sent):
    assert Collective(kind, times=2, bytes=1200, devices=4).sent_bytes == sent


@pure
def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="must be compiled HLO"):
        Program("module @jit_train_step {\n}")


MOVES = """\
HloModule jit_train_step

%fused (a: f32[8,8], b: f32[8]) -> bf16[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %broadcast = f32[8,8]{1,0} broadcast(%b), dimensions={0}
  %sum = f32[8,8]{1,0} add(%a, %broadcast)
  ROOT %convert = bf16[8,8]{1,0} convert(%sum)
}

ENTRY %main (p: f32[8,8], q: f32[8]) -> (bf16[8,8], f32[]) {
  %p = f32[8,8]{1,0:T(8,128)} parameter(0)
  %q = f32[8]{0:T(128)S(1)} parameter(1)
  %fusion = bf16[8,8]{1,0:T(8,128)(2,1)} fusion(%p, %q), kind=kLoop, calls=%fused
  %near = bf16[8,8]{1,0:T(8,128)(2,1)S(1)} negate(%fusion)
  %far = bf16[8,8]{1,0:T(8,128)(2,1)} negate(%near)
  %copy-start = (bf16[8,8]{1,0:T(8,128)(2,1)S(1)}, bf16[8,8]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%far)
  %copy-done = bf16[8,8]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[8,8]{1,0:T(8,128)}), f32[2,8]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:2], [0:8]}
  %slice-done = f32[2,8]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  %joined = f32[4,8]{1,0:T(8,128)} custom-call(%slice-done, %slice-done), custom_call_target="ConcatBitcast"
  %seen = bf16[64]{0} bitcast(%fusion)
  ROOT %tuple = (bf16[8,8]{1,0}, f32[]) tuple(%fusion, %q)
}
"""


# A slice of an array is read through another fusion, and one of another changed in place.
SLICES = """\
HloModule jit_train_step

%inner (c: f32[64,128], d: s32[]) -> f32[64,8] {
  %c = f32[64,128]{1,0} parameter(0)
  %d = s32[] parameter(1)
  %zero = f32[] constant(0)
  %pad = f32[128,128]{1,0} pad(%c, %zero), padding=0_64x0_0
  %cut = f32[128,8]{1,0} dynamic-slice(%pad, %d, %d), dynamic_slice_sizes={128,8}
  ROOT %shaped = f32[64,16]{1,0} reshape(%cut)
}

%outer (e: f32[64,128], f: s32[], g: f32[16,64,16]) -> (s32[], f32[16,64,16], f32[64,16]) {
  %e = f32[64,128]{1,0} parameter(0)
  %f = s32[] parameter(1)
  %g = f32[16,64,16]{2,1,0} parameter(2)
  %piece = f32[64,16]{1,0} fusion(%e, %f), kind=kLoop, calls=%inner
  %one = f32[1,64,16]{2,1,0} bitcast(%piece)
  %put = f32[16,64,16]{2,1,0} dynamic-update-slice(%g, %one, %f, %f, %f)
  %same = f32[16,64,16]{2,1,0} bitcast(%put)
  ROOT %both = (s32[], f32[16,64,16], f32[64,16]) tuple(%f, %same, %piece)
}

%async (h: f32[64,128]) -> f32[4,128] {
  %h = f32[64,128]{1,0} parameter(0)
  ROOT %rows = f32[4,128]{1,0:T(8,128)S(1)} slice(%h), slice={[0:4], [0:128]}
}

ENTRY %main (p: f32[64,128], q: s32[], r: f32[16,64,16]) -> f32[16,64,16] {
  %p = f32[64,128]{1,0:T(8,128)} parameter(0)
  %q = s32[] parameter(1)
  %r = f32[16,64,16]{2,1,0:T(8,128)} parameter(2)
  %fusion = (s32[], f32[16,64,16]{2,1,0:T(8,128)}, f32[64,16]{1,0:T(8,128)}) fusion(%p, %q, %r), kind=kLoop, calls=%outer
  %begun = ((f32[64,128]{1,0:T(8,128)}), f32[4,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) async-start(%p), calls=%async
  %cut = f32[2,128]{1,0:T(8,128)} dynamic-slice(%p, %q, %q), dynamic_slice_sizes={2,128}
  %got = f32[16,64,16]{2,1,0:T(8,128)} get-tuple-element(%fusion), index=0
  %row = f32[1,64,16]{2,1,0:T(8,128)S(1)} get-tuple-element(%fusion), index=1
  ROOT %end = f32[16,64,16]{2,1,0:T(8,128)} dynamic-update-slice(%got, %row, %q, %q, %q)
}
"""


@pure
def test_of_slices_the_slice_is_moved():
    kilobytes = {"piece": 2, "put": 4, "other": 4, "begun": 2, "cut": 1 + 1, "end": 4}
    assert moved_bytes(Program(SLICES)) == 1024 * sum(kilobytes.values())


@pure
def test_bytes_from_and_to_memory():
    """Each instruction reads and writes its whole arrays in HBM."""
    read = {"fusion": 256, "near": 128, "far": 0, "copy": 128, "slice": 64}
    written = {"fusion": 128, "near": 0, "far": 128, "copy": 0, "slice": 0}
    assert moved_bytes(Program(MOVES)) == sum((*read.values(), *written.values()))
    twice = PROGRAM.replace('known_trip_count":{"n":"5"}', 'known_trip_count":{"n":"7"}')
    more = moved_bytes(Program(twice)) - moved_bytes(Program(PROGRAM))
    assert more == 2 * (32 + 32)  # the all-to-all of two more rounds


# Predictions.


@pure
def test_a_roofline_is_arithmetic():
    chip = CHIPS["v5e"]
    assert (chip.flops, chip.memory) == (197e12, 16 * GIB)
    line = roofline(Target("v5e:2x2", chip, ()), 197e9, 81.9e9, 1e9)
    assert (line.compute, line.memory, line.links) == pytest.approx((1e-3, 0.1, 5e-3))
    assert line.step == pytest.approx(0.1)
    assert line.in_turn == pytest.approx(0.106)
    # A core of two has half of what its chip has.
    halved = roofline(Target("tpu7x:2x2x1", chip, (), 2), 197e9, 81.9e9, 1e9)
    assert halved.in_turn == pytest.approx(2 * line.in_turn)
    assert roofline(Target("cpu:8", None, ()), 1, 1, 1) is None


@pure
def test_what_compilers_say_of_memory():
    used = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of "
    found = out_of_memory(f"\n{used}15.75G hbm. Exceeded hbm capacity by 4.75G.\nMore.")
    assert (found.bytes, found.is_all) == (20.5 * GIB, True)
    assert found.message.endswith("by 4.75G.")
    assert out_of_memory("RESOURCE_EXHAUSTED: no").bytes is None


def facts(**changes):
    """Facts of a ViT-H/14 that does not fit, in round numbers: 1 GiB is kept, 2 for each of
    32 images are not."""
    memory = Memory(GIB // 4, 3 * GIB // 4, 0, 64 * GIB + GIB // 4, 0, 16 * GIB)
    recipe = ViTPreTraining.for_model("ViTH14", "jft300m", batch_size=512)
    return {
        "fits": False,
        "objective": None,
        "memory": memory,
        "states": {"data_parallel": 10 * GIB, "fully_sharded": GIB, "fully_sharded:4": 5},
        "mesh": {"batch": 16},
        "images": 512,
        "config": {"num_layers": 32},
        "recipe": recipe,
        "target": Target("v5e:4x4", CHIPS["v5e"], (None,) * 16),
        **changes,
    }


class Blocks:
    """A model whose blocks hand on 256 tokens of 1280 numbers, 2 bytes each."""

    dtype_policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")

    def get_layer(self, name):
        class Block:
            output = keras.KerasTensor((None, 256, 1280))

        return Block


@pure
def test_advice_is_computed():
    split, rematerialize, fewer, more = advice(facts(), Blocks())
    assert split.endswith("1.0 GiB here, would take fully_sharded:4 0.0 GiB")
    # 32 images · 32 blocks · 256 · 1280 · 2 bytes, one block's 2 GiB, and 1.25.
    assert "--rematerialize needs about 3.9 GiB, which fits" in rematerialize
    # 16 - 1.25 of state and gradients, 0.25 to sum them up: 7 of 2 GiB, 4 divide 512.
    assert "--micro-batch-size 64, about 2,048 MiB an image" in fewer
    assert "about 7 of the 32 images" in more
    assert "so 73 devices for a batch of 512, or a batch of 112" in more
    assert list(advice(facts(fits=True), None)) == []
    _, rematerialize, *_ = advice(facts(objective="masked_autoencoder"), None)
    assert rematerialize.endswith("again: --rematerialize takes a third more FLOPs")
    small = Memory(20 * GIB, 0, 0, GIB, 0, 16 * GIB)
    *_, last = advice(facts(memory=small), Blocks())
    assert last.startswith("there is no room for a single image beside 40.0 GiB")


# What is refused.


@pure
@pytest.mark.parametrize(
    "name", ["v5e", "v5e:", "v5e:4", "v5e:0x4", "h100:9", "h100:2x4", "cpu:0", ""]
)
def test_devices_must_be_known(name):
    with pytest.raises(ValueError, match=r"v5e:4x4, v5p:2x2x4.*cpu:8.*Received: '" + name):
        target(name)


@pure
def test_without_its_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ImportError, match="needs no TPU.*`pip install libtpu`"):
        target("v5e:4x4")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
def test_a_backend_that_cannot_says_so():
    with pytest.raises(ValueError, match="needs KERAS_BACKEND=jax"):
        plan("ViTB16", "cpu:8")


@pure
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "ViTX16"], "`--model` must be one of"),
        (["--model", "ViTS16"], "Use --recipe augreg, which is for every model"),
        (["--model", "ViTB16", "--recipe", "vit", "--epochs", "3"], "for the recipes pre"),
        (["--model", "ViTB16", "--set", "depth=3"], "`--set` takes NAME=VALUE"),
        ([*OBJECTIVE, "--classes", "5"], "--objective masked_autoencoder --classes 5"),
        ([*OBJECTIVE, "--recipe", "deit"], "--objective masked_autoencoder --recipe deit"),
    ],
)
def test_wrong_options(options, message, capsys):
    assert main(["plan", "--devices", "cpu:1", *options]) == 2
    assert message in capsys.readouterr().err


def printed_plan(capsys, *options):
    """JSON that `plan` prints of a tiny model for this process' single device."""
    command = ["plan", "--model", "ViTS16", "--batch", "4", "--devices", "cpu:1", "--json"]
    for field in ("num_layers=1", "hidden_dim=16", "num_heads=2", "mlp_dim=32"):
        command += ["--set", field]
    assert main([*command, *options]) == 0
    printed = capsys.readouterr()
    assert "compiles it for 1 × virtual CPU device" in printed.err
    return json.loads(printed.out)


@on_jax
@pytest.mark.parametrize(("recipe", "name"), [("augreg", "AugReg"), ("deit", "DeiT")])
def test_the_command_line(recipe, name, capsys):
    options = ("--recipe", recipe, "--image-size", "16", "--micro-batch-size", "2")
    found = printed_plan(capsys, *options, "--classes", "7")
    assert found["config"]["classes"] == 7
    assert (found["recipe"]["name"], found["recipe"]["batch_size"]) == (name, 4)
    assert (found["images"], found["dtype"]) == (2, "mixed_bfloat16")
    assert found["objective"] is None
    assert found["collectives"] == []


@on_jax
def test_the_command_line_plans_objectives(capsys):
    options = ("--objective", "self_distillation", "--image-size", "32")
    found = printed_plan(capsys, *options, "--set", "num_local_views=1")
    assert found["objective"] == "self_distillation"
    assert found["config"]["classes"] == 0
    assert found["recipe"]["name"] == "DINOPreTraining"
    # 300 epochs of ImageNet.
    assert found["recipe"]["steps"] == pytest.approx(300 * 1_281_167 / 4, abs=1)


# The compiled program of a TPU.


def compiled(devices, batch, recipe):
    """`tensor_parallel:4` of ViT-B/16 for devices that are not here, and each collective."""
    command = [sys.executable, "-m", "keras_vit", "plan", "--model", "ViTB16", "--json"]
    command += ["--devices", devices, "--strategy", "tensor_parallel:4", "--batch", batch]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [*command, *recipe],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    kinds = {}
    for row in found["collectives"]:
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + row["times"]
    print(kinds)
    return found, kinds


def is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # nor what it is in
        return False


FINE_TUNING = ["--recipe", "vit", "--image-size", "224"]


@on_jax
@pytest.mark.skipif(
    not is_installed("libtpu"),
    reason="libtpu, the compiler for TPUs, is not installed",
)
@pytest.mark.parametrize(
    ("recipe", "counts"),
    [
        (["--recipe", "pretraining"], {"all-reduce": 52}),
        # Without a representation layer the gradient of the class token is gathered from
        # the head, 72 KiB of a device.
        (FINE_TUNING, {"all-reduce": 52, "all-gather": 1}),
    ],
)
def test_tensor_parallelism_on_a_tpu_gathers_no_projection(recipe, counts):
    """ViT-B/16 on 4 × 4 chips, split over 4: nothing is gathered, in minutes.

    For each of 12 blocks two all-reduces forward and two backward, and those of the head,
    the gradients over the batch and the loss, of which XLA joins some.
    """
    found, kinds = compiled("v5e:4x4", "256", recipe)
    assert kinds == counts
    assert found["fits"]


@on_jax
@pytest.mark.skipif(
    not is_installed("jax_plugins.xla_cuda12"),
    reason="JAX' plugin of CUDA, which compiles for GPUs, is not installed",
)
def test_tensor_parallelism_on_gpus_gathers_no_projection():
    found, kinds = compiled("h100:8", "256", FINE_TUNING)
    assert kinds == {"all-reduce": 54, "all-gather": 1}
    assert found["fits"]
    assert found["flops"] is None
