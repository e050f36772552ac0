"""Memory that building a model and running it takes, beside the size of its weights.

Builds a constructor's model with new weights in a fresh process for each backend, has it
predict one image, and compares the growth of the process's peak memory, before and after
that, with 4 bytes per parameter. Beside it, as many parameters in plain Keras `Dense`
layers, built, in the same run.

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
built = peak() - before
if len(sys.argv) == 2:
    model.predict_on_batch(numpy.zeros((1, *model.input_shape[1:]), "float32"))
growths = [growth / (4 * parameters) for growth in (built, peak() - before)]
print(parameters, *growths, seconds)
"""


def build(backend, *arguments, return_memory):
    """Parameters, peak memory over weights built and run, and seconds of one build."""
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
    parameters, *others = output.splitlines()[-1].split()
    return int(parameters), *map(float, others)


def main():
    """Prints one row for each backend."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViTH14")
    parser.add_argument("--return_memory", action="store_true")
    args = parser.parse_args()
    print(f"| backend | weights of {args.model} | built: peak / weights | seconds", end="")
    print(" | run: peak / weights | plain `Dense`, built |")
    print("|---|---|---|---|---|---|")
    for backend in ("tensorflow", "jax", "torch"):
        options = {"return_memory": args.return_memory}
        parameters, built, run, seconds = build(backend, args.model, **options)
        plain = build(backend, "Dense", str(parameters), **options)[1]
        size = 4 * parameters / 2**30
        row = f"{size:.2f} GiB | {built:.2f} | {seconds:.0f} | {run:.2f} | {plain:.2f}"
        print(f"| {backend} | {row} |")


if __name__ == "__main__":
    main()
