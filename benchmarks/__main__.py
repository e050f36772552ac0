"""Speed of keras_vit beside other packages.

    python -m benchmarks                      # B/16: inference and training, batch 8
    python -m benchmarks --all                # every model, size and batch: an hour or two
    python -m benchmarks --model ViTL16 --task inference --backend jax --rounds 9
    python -m benchmarks --write              # tables and picture of what was measured

What is not installed is left out, and said so. Peers that are no part of the development
environment: `pip install keras-hub kimm flax timm`.
"""

import argparse
import json
import os
from itertools import product
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "numpy")  # of this process, which computes nothing

from benchmarks.speed.cases import TASKS, TRAINING, Case
from benchmarks.speed.contenders import CONTENDERS, KERAS_BACKENDS
from benchmarks.speed.race import race
from benchmarks.speed.tables import picture, section, table

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "RESULTS.md", HERE / "speed.png"
MARKS = "<!-- speed: python -m benchmarks --write -->", "<!-- end of speed -->"
MODELS = ("ViTB16",)
ALL_MODELS = ("ViTTi16", "ViTB16", "ViTL16", "R50ViTB16")
HUGE = ("ViTH14",)  # one image at a time


def cases(args):
    """Cases that the arguments select."""
    if not args.all:
        models, tasks = args.model or MODELS, args.task or TASKS
        sizes, batches = args.image_size or [224], args.batch_size or [8]
        return [Case.of(*one) for one in product(models, tasks, sizes, batches)]
    found = [("ViTB16", "inference", 224, batch) for batch in (1, 8, 32)]
    found += [(model, task, 224, 8) for model, task in product(ALL_MODELS, TASKS)]
    found += [("ViTB16", "inference", 384, 8)]
    found += [(model, "inference", 224, 1) for model in HUGE]
    return [Case.of(*one) for one in dict.fromkeys(found)]


def groups(case, backends):
    """Groups of backends whose contenders take turns: for training one backend at a time,
    since a dozen processes that train do not fit into memory.
    """
    return [[one] for one in backends] if case.task == TRAINING else [backends]


def joined(results):
    """Joins the results of all groups."""
    first, *others = results
    for other in others:
        first["contenders"] += other["contenders"]
    return first


def name_of(case):
    """Name of the file of a case."""
    return f"{case.model}_{case.image_size}_{case.task}_{case.batch_size}.json"


def write(results):
    """Writes tables between the marks of RESULTS.md, and a picture of the usual cases."""
    usual = {str(Case.of(model, task, 224, 8)) for model, task in product(MODELS, TASKS)}
    shown = [r for r in results if str(Case(**r["case"])) in usual]
    picture(shown or results, PICTURE)
    before, after = RESULTS.read_text().split(MARKS[0])
    after = after.split(MARKS[1])[1]
    text = f"![Bars of all contenders]({PICTURE.name})\n\n{section(results)}"
    RESULTS.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}")


def main():
    """Measures the selected cases, or writes the results that there are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--task", nargs="+", choices=TASKS)
    parser.add_argument("--image-size", nargs="+", type=int, metavar="PIXELS")
    parser.add_argument("--batch-size", nargs="+", type=int, metavar="N")
    parser.add_argument("--backend", nargs="+", choices=KERAS_BACKENDS)
    parser.add_argument("--contender", nargs="+", choices=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--folder", type=Path, default=HERE / "results")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write:
        files = sorted(args.folder.glob("*.json"))
        if not files:
            parser.error(f"nothing was measured: there are no results in {args.folder}")
        return write([json.loads(file.read_text()) for file in files])
    args.folder.mkdir(parents=True, exist_ok=True)
    for case in cases(args):
        print(f"\n{case}", flush=True)
        names, backends = args.contender or CONTENDERS, args.backend or KERAS_BACKENDS
        result = joined(
            race(case, names, together, args.rounds) for together in groups(case, backends)
        )
        (args.folder / name_of(case)).write_text(json.dumps(result, indent=1))
        print(f"\n{table(result)}", flush=True)


if __name__ == "__main__":
    main()
