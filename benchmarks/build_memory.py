"""Memory that building a model takes, beside the size of its weights.

Builds a constructor's model with new weights in a fresh process for each backend and
compares the growth of the process's peak memory with 4 bytes per parameter.

    python benchmarks/build_memory.py --model ViTH14
"""

import argparse
import os
import subprocess
import sys

BUILD = """
import resource, sys, time
import keras, numpy, keras_vit
keras.layers.Dense(8)(numpy.zeros((1, 8)))  # what the backend itself sets up

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, start = peak(), time.perf_counter()
model = getattr(keras_vit, sys.argv[1])(weights=None)
seconds = time.perf_counter() - start
weights = 4 * model.count_params()
growth = peak() - before
print(f"| {keras.backend.backend()} | {weights / 2**30:.2f} GiB "
      f"| {growth / 2**30:.2f} GiB | {growth / weights:.2f} | {seconds:.0f} s |")
"""


def main():
    """Prints one row for each backend."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViTH14")
    args = parser.parse_args()
    print("| backend | weights | growth of peak memory | ratio | time |")
    print("|---|---|---|---|---|")
    for backend in ("tensorflow", "jax", "torch"):
        environment = {**os.environ, "KERAS_BACKEND": backend}
        command = [sys.executable, "-c", BUILD, args.model]
        output = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
        print(output.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
