"""What pre-training ViTs takes on TPUs that are not here: the tables of docs/planning.md.

Compiles each of `CONFIGURATIONS` in a process of its own, minutes each, and keeps what
`keras_vit.planning.plan` says as JSON in a folder; those that are there already are not
compiled again. With `--write` it makes the tables of those that are there.

    pip install libtpu
    KERAS_BACKEND=jax python benchmarks/plan.py outputs/plans
    python benchmarks/plan.py outputs/plans --write docs/planning.md
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

DATA_PARALLEL, REMATERIALIZED = "data_parallel", "rematerialized"
# Model, devices, strategy, images of an update, and whether it is rematerialized. First
# the paper's runs, of 4096 images, by 64 chips.
CONFIGURATIONS = [
    ("ViTB16", "v5e:8x8", DATA_PARALLEL, 4096),
    ("ViTB16", "v5p:4x4x4", DATA_PARALLEL, 4096),
    ("ViTB16", "v6e:8x8", DATA_PARALLEL, 4096),
    ("ViTL16", "v5p:4x4x4", DATA_PARALLEL, 4096),
    ("ViTH14", "v5e:4x4", "fully_sharded", 4096),
    ("ViTH14", "v5p:4x4x4", DATA_PARALLEL, 4096),
    ("ViTL16", "v6e:8x8", DATA_PARALLEL, 4096),
    ("ViTL16", "v5e:8x8", DATA_PARALLEL, 4096),
    ("ViTL16", "v5e:8x8", DATA_PARALLEL, 4096, REMATERIALIZED),
    ("ViTH14", "v6e:8x8", DATA_PARALLEL, 4096),
    ("ViTH14", "v6e:8x8", DATA_PARALLEL, 4096, REMATERIALIZED),
    ("ViTH14", "v5e:8x8", "fully_sharded", 4096),
    ("ViTB16", "v5e:1x1", "none", 64),
    ("ViTB16", "v5e:16x16", DATA_PARALLEL, 4096),
    ("ViTB16", "v5e:4x4", "tensor_parallel:4", 1024),
    ("ViTB16", "v6e:16x16", DATA_PARALLEL, 4096),
    ("ViTB16", "v5p:8x8x8", DATA_PARALLEL, 4096),
    ("ViTH14", "v5e:8x8", "fully_sharded", 4096, REMATERIALIZED),
    ("ViTB16", "v5e:4x4", "fully_sharded", 1024),
    ("ViTB16", "v6e:1x1", "none", 64),
    ("ViTB16", "v5p:1x1x1", "none", 64),
]


def name_of(configuration):
    """Of its file."""
    return "_".join(map(str, configuration)).replace(":", "-")


def compile_one(configuration, path):
    """In a process that ends after it: compilers keep what they took."""
    import keras_vit

    model, devices, strategy, batch_size, *rest = configuration
    recipe = keras_vit.training.ViTPreTraining.for_model(
        model, "jft300m", batch_size=batch_size, rematerialize=bool(rest) or None
    )
    plan = keras_vit.planning.plan(model, devices, strategy, recipe, say=print)
    print(plan, flush=True)
    given = {"configuration": configuration, "date": time.strftime("%Y-%m-%d")}
    path.write_text(json.dumps({**given, **plan.summary()}, indent=1))


def main():
    """Compiles what is not there yet, or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--only", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        found = {name_of(c): c for c in CONFIGURATIONS}[args.only]
        return compile_one(found, args.folder / f"{args.only}.json")
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
