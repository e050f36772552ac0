"""Plans of pre-training on TPUs that are absent: the tables of docs/planning.md.

Compiles each of `CONFIGURATIONS` in a process of its own, which takes minutes, and keeps
the result of `keras_vit.planning.plan` as JSON in a folder. Configurations with a file
there are not compiled again. `--write` writes the tables of all files.

    pip install libtpu
    KERAS_BACKEND=jax python benchmarks/plan.py benchmarks/plans
    python benchmarks/plan.py benchmarks/plans --write docs/planning.md
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

GIB, DAY = 2**30, 86_400
DATA_PARALLEL, REMATERIALIZED = "data_parallel", "rematerialized"
# The ViT paper's table 2: model, epochs of JFT-300M (table 3), TPUv3-core-days. For L/16
# table 3 has 7 or 14 epochs and does not say to which of them the days belong.
PAPER = [("ViTL16", 14, 680), ("ViTL16", 7, 680), ("ViTH14", 14, 2500)]
V3_CORE = 123e12 / 2  # FLOP/s at best (TPU v4, arXiv 2304.01433, table 4)
EPOCHS = {"ViTB16": (7,), "ViTL16": (7, 14), "ViTH14": (14,)}
# Model, devices, strategy, images of an update, and rematerialization. The paper's runs,
# with 4096 images on 64 chips, come first.
CONFIGURATIONS = [
    ("ViTB16", "v6e:8x8", DATA_PARALLEL, 4096),
    ("ViTB16", "v5e:8x8", DATA_PARALLEL, 4096),
    ("ViTL16", "v5p:4x4x4", DATA_PARALLEL, 4096),
    ("ViTH14", "v5e:4x4", "fully_sharded", 4096),
    ("ViTH14", "v5p:4x4x4", DATA_PARALLEL, 4096),
    ("ViTB16", "v5p:4x4x4", DATA_PARALLEL, 4096),
    ("ViTL16", "v5e:8x8", DATA_PARALLEL, 4096),
    ("ViTH14", "v6e:8x8", DATA_PARALLEL, 4096),
    ("ViTH14", "v5e:8x8", "fully_sharded", 4096),
    ("ViTB16", "v5e:1x1", "none", 64),
    ("ViTL16", "v6e:8x8", DATA_PARALLEL, 4096),
    ("ViTB16", "v5e:16x16", DATA_PARALLEL, 4096),
    ("ViTB16", "v5e:4x4", "tensor_parallel:4", 1024),
    ("ViTL16", "v5e:8x8", DATA_PARALLEL, 4096, REMATERIALIZED),
    ("ViTH14", "v6e:8x8", DATA_PARALLEL, 4096, REMATERIALIZED),
    ("ViTB16", "v6e:16x16", DATA_PARALLEL, 4096),
    ("ViTB16", "v5p:8x8x8", DATA_PARALLEL, 4096),
    ("ViTH14", "v5e:4x4", "fully_sharded", 4096, REMATERIALIZED),
    ("ViTB16", "v5e:4x4", "fully_sharded", 1024),
    ("ViTB16", "v6e:1x1", "none", 64),
    ("ViTB16", "v5p:1x1x1", "none", 64),
]


def name_of(configuration):
    """Name of the file of a configuration."""
    return "_".join(map(str, configuration)).replace(":", "-")


def compile_one(configuration, path):
    """Compiles in a process of its own, since compilers keep their memory."""
    import keras_vit

    model, devices, strategy, batch_size, *rest = configuration
    recipe = keras_vit.training.ViTPreTraining.for_model(
        model, "jft300m", batch_size=batch_size, rematerialize=bool(rest) or None
    )
    plan = keras_vit.planning.plan(model, devices, strategy, recipe, say=print)
    print(plan, flush=True)
    given = {"configuration": configuration, "date": time.strftime("%Y-%m-%d")}
    path.write_text(json.dumps({**given, **plan.summary()}, indent=1))


INTRODUCTION = """\
# Planning without the hardware

Written by `python benchmarks/plan.py benchmarks/plans --write docs/planning.md` on {date},
from programs that {packages} compiled on a
machine with two cores, which other processes used, too, and without an accelerator.

**None of this has run on a TPU.** Memory, operations and collectives are those of the
compiled program. Times are predictions from published peak rates, which no program
reaches. Each row is the step that `keras_vit.training.finetune` runs in `fit` under the
strategy: the ViT paper's pre-training on JFT-300M (18,291 classes, 224 pixels, Adam,
`mixed_bfloat16`, no dropout), compiled ahead of time by libtpu for that topology. Rows
that do not fit were refused by the compiler.

- *State*: weights and optimizer of a device. *Peak*: all memory of the program on a device,
  with its code.
- *TFLOPs*: floating-point operations of a device and step as XLA counts them, the body of a
  loop once. *Of the model*: three times a forward pass, as a share of these. With loops it
  exceeds 100 %; the prediction then uses the model's operations.
- *Memory*: time of the bytes that each instruction reads from and writes to HBM; for a
  slice, or a change in place, only those bytes. If a fusion slices an intermediate result,
  the whole operand counts: times may be too long in the loops that gather weights (fully
  sharded). (ViTH14 on v5p:4x4x4 was compiled before slices were counted as slices; its
  memory time is too long.)
- *Collectives*: number of runs, with loops. *Sent*: by each device, with ring algorithms.
- *Step*: at peak rates. First the longest of operations, memory and links, if all three
  overlap; then their sum, if none do.
"""

TENSORS = """\
Under `tensor_parallel:4` on v5e:4x4 the step of ViT-B/16 for 256 images holds 52
all-reduces and no other collective: two in the forward and two in the backward pass of
each block, some of which XLA joins, and those of the head, the gradients and the loss.
`tests/test_plan.py` tests this where libtpu is installed.
"""

WORKED = """\
## The paper's pre-training runs

JFT-300M has 303 million images; the batch size is 4096. Days and chip-days are those of the
whole run at the predicted time of a step, if everything overlaps.
"""

MEASURED = """\
The paper's TPUv3-core-days show the share that real runs reach: three times the forward
pass of these models, for the epochs of the run, at the {peak:g} TFLOP/s of a core.
"""


def write(folder, path):
    """Writes the tables of the plans in the folder."""
    found = {}
    for configuration in CONFIGURATIONS:
        file = folder / f"{name_of(configuration)}.json"
        if file.exists():
            found[configuration] = json.loads(file.read_text())
    plans = list(found.values())
    packages = plans[0]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    dates = sorted({plan["date"] for plan in plans})
    parts = [INTRODUCTION.format(date=" to ".join(dates), packages=versions)]
    order = {name: i for i, name in enumerate(("ViTB16", "ViTL16", "ViTH14"))}
    plans.sort(key=lambda p: (order[p["model"]], p["devices"][:3], p["num_devices"]))
    parts.append(markdown(MEMORY_HEADER, map(memory_row, plans)))
    parts.append(markdown(TIME_HEADER, (time_row(p) for p in plans if p["predicted"])))
    parts += [TENSORS, WORKED]
    runs = [p for p in plans if p["recipe"]["batch_size"] == 4096 and p["predicted"]]
    parts.append(markdown(RUN_HEADER, (row for p in runs for row in run_rows(p))))
    parts.append(MEASURED.format(peak=V3_CORE / 1e12))
    per_image = {
        p["model"]: p["model_flops"] * p["num_devices"] / p["images"] for p in plans
    }
    rows = (paper_row(*run, per_image) for run in PAPER if run[0] in per_image)
    parts.append(markdown(PAPER_HEADER, rows))
    missing = [name_of(c) for c in CONFIGURATIONS if c not in found]
    if missing:
        names = "\n".join(f"- {name}" for name in missing)
        parts.append(f"Configurations of the script that were not compiled:\n\n{names}\n")
    path.write_text("\n".join(parts))


MEMORY_HEADER = (
    *("model", "devices", "strategy", "images a device", "state GiB", "peak GiB"),
    *("of GiB", "collectives", "sent MiB", "compiled in s"),
)
TIME_HEADER = (
    *("model", "devices", "strategy", "TFLOPs", "of the model", "operations ms"),
    *("memory ms", "links ms", "step ms", "images/s"),
)
RUN_HEADER = ("model", "epochs", "steps", "devices", "strategy", "days", "chip-days")
PAPER_HEADER = ("model", "epochs", "exaFLOPs", "core-days", "at peak", "share of peak")


TEXTS = ("model", "devices", "strategy", "collectives")


def markdown(header, rows):
    """Markdown table with numbers aligned to the right."""
    lines = [header, ["---" if name in TEXTS else "---:" for name in header]]
    lines += rows
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def strategy_of(plan):
    """Strategy with its options."""
    return plan["strategy"] + (", remat." if plan["recipe"]["rematerialize"] else "")


def memory_row(plan):
    """Row of memory and collectives."""
    memory = plan["memory"]
    replicas = plan["mesh"].get("batch", 1)
    peak = f"{memory['peak'] / GIB:.1f}" if memory["peak"] else "?"
    exchanged = ", ".join(f"{r['times']} {r['kind']}" for r in plan["collectives"])
    sent = sum(row["sent_bytes"] for row in plan["collectives"]) / 2**20
    return (
        *(plan["model"], plan["devices"], strategy_of(plan)),
        f"{plan['images'] / replicas:g}",
        f"{(memory['weights'] + memory['optimizer']) / GIB:.2f}",
        peak if plan["fits"] else f"**{peak}**, does not fit",
        f"{memory['capacity'] / GIB:g}",
        *((exchanged or "–", f"{sent:,.0f}") if plan["fits"] else ("–", "–")),
        f"{plan['compile_seconds']:.0f}",
    )


def time_row(plan):
    """Row of predicted times."""
    predicted = plan["predicted"]
    three = (predicted[name] * 1000 for name in ("compute", "memory", "links"))
    return (
        *(plan["model"], plan["devices"], strategy_of(plan)),
        f"{plan['flops'] / 1e12:.3g}",
        f"{plan['model_flops'] / plan['flops']:.0%}",
        *(f"{number:.1f}" for number in three),
        f"{predicted['step'] * 1000:.1f}–{predicted['in_turn'] * 1000:.1f}",
        f"{predicted['images_per_second']:,.0f}",
    )


def run_rows(plan):
    """Rows of a whole run of the paper, for each number of epochs."""
    for epochs in EPOCHS[plan["model"]]:
        steps = round(epochs * 303e6 / plan["recipe"]["batch_size"])
        days = steps * plan["predicted"]["step"] / DAY
        yield (
            *(plan["model"], epochs, f"{steps:,}", plan["devices"], strategy_of(plan)),
            *(f"{days:.2f}", f"{days * plan['num_devices']:,.0f}"),
        )


def paper_row(model, epochs, core_days, per_image):
    """Row of the share of peak rate that the paper's own run reached."""
    flops = per_image[model] * epochs * 303e6
    at_peak = flops / V3_CORE / DAY
    return (
        *(model, epochs, f"{flops / 1e18:,.0f}", f"{core_days:,}"),
        *(f"{at_peak:,.0f}", f"{at_peak / core_days:.0%}"),
    )


def main():
    """Compiles configurations without a plan, or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--only", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        found = {name_of(c): c for c in CONFIGURATIONS}[args.only]
        return compile_one(found, args.folder / f"{args.only}.json")
    if args.write:
        return write(args.folder, args.write)
    args.folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    for configuration in CONFIGURATIONS:
        name = name_of(configuration)
        if (args.folder / f"{name}.json").exists():
            continue
        print(f"\n== {name}", flush=True)
        command = [sys.executable, __file__, str(args.folder), "--only", name]
        subprocess.run(command, env=environment)


if __name__ == "__main__":
    main()
