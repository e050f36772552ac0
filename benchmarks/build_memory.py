"""Memory that building a model takes, beside the size of its weights.

Builds a constructor's model with new weights in a fresh process for each backend and
compares the growth of the process's peak memory with 4 bytes per parameter. Beside it,
as many parameters in plain Keras `Dense` layers, in the same run.

The C library's allocator keeps freed blocks of some megabytes for later; --return_memory
makes it hand them back, which shows what is in use at one time.

    python benchmarks/build_memory.py --model ViTH14 --return_memory
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

def dense(parameters):
    layers = [keras.layers.Dense(5120) for _ in range(parameters // (1280 * 5120))]
    for layer in layers:
        layer.build((None, 1280))
    return keras.Sequential(layers)  # counts; it is never called

before, start = peak(), time.perf_counter()
if len(sys.argv) == 3:
    model = dense(int(sys.argv[2]))
    parameters = sum(layer.count_params() for layer in model.layers)
else:
    model = getattr(keras_vit, sys.argv[1])(weights=None)
    parameters = model.count_params()
seconds = time.perf_counter() - start
growth = peak() - before
print(parameters, growth / (4 * parameters), seconds)
"""


def build(backend, *arguments, return_memory):
    """Parameters, peak memory over weights, and seconds of one build."""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    if return_memory:
        environment["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    output = subprocess.run(
        [sys.executable, "-c", BUILD, *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    parameters, ratio, seconds = output.splitlines()[-1].split()
    return int(parameters), float(ratio), float(seconds)


def main():
    """Prints one row for each backend."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViTH14")
    parser.add_argument("--return_memory", action="store_true")
    args = parser.parse_args()
    print(f"| backend | weights of {args.model} | peak / weights | seconds |", end="")
    print(" peak / weights of plain `Dense` |")
    print("|---|---|---|---|---|")
    for backend in ("tensorflow", "jax", "torch"):
        options = {"return_memory": args.return_memory}
        parameters, ratio, seconds = build(backend, args.model, **options)
        _, plain, _ = build(backend, "Dense", str(parameters), **options)
        size = 4 * parameters / 2**30
        print(f"| {backend} | {size:.2f} GiB | {ratio:.2f} | {seconds:.0f} | {plain:.2f} |")


if __name__ == "__main__":
    main()
