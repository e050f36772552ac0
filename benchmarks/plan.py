"""Plans of pre-training on TPUs that are absent: the tables of docs/planning.md.

Compiles each of `CONFIGURATIONS` in a process of its own, minutes each, and keeps what
`keras_vit.planning.plan` says as JSON in a folder; those that are there already are not
compiled again. With `--write` it makes the tables of those that are there.

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
# table 3 has 7 or 14 epochs; of which these are the days it does not say.
PAPER = [("ViTL16", 14, 680), ("ViTL16", 7, 680), ("ViTH14", 14, 2500)]
V3_CORE = 123e12 / 2  # FLOP/s at best (TPU v4, arXiv 2304.01433, table 4)
EPOCHS = {"ViTB16": (7,), "ViTL16": (7, 14), "ViTH14": (14,)}
# Model, devices, strategy, images of an update, and whether it is rematerialized. First
# the paper's runs, of 4096 images, by 64 chips.
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
machine with two cores, which others used too, and no accelerator.

**None of this has run on a TPU.** Memory, operations and collectives are those of the
compiled program; every time is a prediction from published peak rates, which no program
reaches. Each row is the step that `keras_vit.training.finetune` has `fit` run under the
strategy: the ViT paper's pre-training on JFT-300M (18,291 classes, 224 pixels, Adam,
`mixed_bfloat16`, no dropout), compiled ahead of time by libtpu for that topology. A row
that does not fit is what the compiler refused.

- *State*: weights and optimizer of a device. *Peak*: all that the program takes of its
  memory, the code included.
- *TFLOPs*: floating-point operations of a device and step as XLA counts them, the body of a
  loop once. *Of the model*: three times a forward pass, of these; beyond 100 % where there
  are loops, and the prediction then takes the model's.
- *Memory*: of the bytes that each instruction of the program reads from and writes to HBM,
  of those that take a slice, or change one in place, the slice. Where a joined instruction
  slices what it has itself computed of an operand, the whole operand counts: in the loops
  that gather weights (fully sharded) times may be too long. (ViTH14 on v5p:4x4x4 was
  compiled before slices counted as such, and its memory time is too long.)
- *Collectives*: how often, with loops; *sent*: by each device, if they pass their parts on
  in a ring.
- *Step*: at peak rates. The longest of operations, memory and links, as if all three were
  at the same time, and their sum, as if none were.
"""

TENSORS = """\
Under `tensor_parallel:4` on v5e:4x4 the step of ViT-B/16 for 256 images holds 52
all-reduces and nothing else: two forward and two backward of each block, of which XLA joins
some, the head's, the gradients' and the loss'. `tests/test_plan.py` pins it where libtpu is
installed.
"""

WORKED = """\
## The paper's pre-training runs

JFT-300M has 303 million images; batch 4096. Days and chip-days are those of the whole run
at the step's predicted time, if all overlaps.
"""

MEASURED = """\
What real runs reach can be told from the paper itself, of its TPUv3-core-days: three times
the forward pass of these models, for so many epochs, at the {peak:g} TFLOP/s of a core.
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
        parts.append(
            f"Of the script's configurations these were not compiled:\n\n{names}\n"
        )
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
