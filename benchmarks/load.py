"""Time and memory of loading a checkpoint, beside reading its tensors with NumPy alone.

Writes a checkpoint of the model with random weights in each layout, then loads it in
fresh processes: `load_weights` into a model that is there (which reads the file twice, as
it must not touch the model before it knows the file to be sound) and `from_pretrained`,
beside NumPy (`np.load` of every tensor of the `.npz`; `safetensors` of every tensor of the
`.safetensors`) and transformers' `from_pretrained` of the same weights. Times are
medians of pairs, a reading by NumPy and a load in turn; memory is the growth of the peak
beyond the model, in shares of the model's size, in a run of its own, in which the C
library hands back what is freed (which costs time).

    python benchmarks/load.py --model ViTL16 --rounds 5
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

NUMPY = """
def read(path):
    import numpy, safetensors
    if path.endswith(".npz"):
        with numpy.load(path) as file:
            for name in file:
                file[name]
    else:
        with safetensors.safe_open(path, "numpy") as file:
            for name in file.keys():
                file.get_tensor(name)
"""
COMMON = """
import json, os, statistics, sys, time
import numpy

def peak():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmHWM"].split()[0]) * 1024

def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")

def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result

path, model_name, rounds, fields = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
"""
# Each prints seconds of the load, seconds of NumPy, and memory over model and tensor.
LOAD_WEIGHTS = """
import keras_vit
model = getattr(keras_vit, model_name)(weights=None, **json.loads(fields))
size = 4 * model.count_params()
pairs = []
for i in range(rounds):
    alone, _ = timed(read, path)
    forget_peak()
    before = peak()
    load, _ = timed(keras_vit.load_weights, model, path)
    pairs.append((load, alone, (peak() - before) / size))
"""
FROM_PRETRAINED = """
import keras_vit
size = os.path.getsize(path)  # of float32 tensors
pairs = []
for i in range(rounds):
    alone, _ = timed(read, path)
    forget_peak()
    before = peak()
    load, model = timed(keras_vit.from_pretrained, path)
    pairs.append((load, alone, (peak() - before) / size - 1))
    del model
"""
TRANSFORMERS = """
import torch, transformers
folder = os.path.dirname(path)
pairs = []
for i in range(rounds):
    alone, _ = timed(read, path)
    forget_peak()
    before = peak()
    load, model = timed(transformers.ViTForImageClassification.from_pretrained, folder)
    size = 4 * sum(p.numel() for p in model.parameters())
    pairs.append((load, alone, (peak() - before) / size - 1))
    del model
"""
REPORT = """
print(json.dumps([statistics.median(pair[0] for pair in pairs),
                  statistics.median(pair[0] / pair[1] for pair in pairs),
                  statistics.median(pair[2] for pair in pairs)]))
"""


def run(backend, program, *arguments, return_memory=False):
    """Runs a program in a fresh process, and returns its last line."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if return_memory:
        environment["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    source = COMMON + NUMPY + program + REPORT
    output = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("VERBOSE") else subprocess.DEVNULL,
        text=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


FILES = {
    "google": "google.npz",
    "timm": "timm.safetensors",
    "huggingface": "huggingface/model.safetensors",
}
WRITE = """
import keras_vit
model = getattr(keras_vit, model_name)(weights=None, **json.loads(fields))
for weight in model.weights:
    if "/head/" in weight.path:
        weight.assign(0.01 * numpy.random.default_rng(0).normal(size=weight.shape))
keras_vit.save_weights(model, path + "/google.npz", layout="google")
keras_vit.save_weights(model, path + "/timm.safetensors", layout="timm")
keras_vit.save_weights(model, path + "/huggingface", layout="huggingface")
pairs = [(0, 1, 0)]
"""


def main():
    """Prints one row for each backend, layout and way of loading."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViTL16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fields", default="{}", help="JSON, arguments of the model")
    parser.add_argument("--layouts", nargs="+", default=list(FILES), choices=FILES)
    args = parser.parse_args()
    options = (args.model, args.rounds, args.fields)
    with tempfile.TemporaryDirectory() as folder:
        run("torch", WRITE, folder, *options)
        files = [FILES[layout] for layout in args.layouts]
        print("| | file | seconds | × NumPy alone | memory beyond the model |")
        print("|---|---|---|---|---|")

        def row(name, backend, program, file):
            path = f"{folder}/{file}"
            seconds, ratio, _ = run(backend, program, path, *options)
            once = (args.model, 1, args.fields)
            *_, memory = run(backend, program, path, *once, return_memory=True)
            print(f"| {name} | {file} | {seconds:.2f} | {ratio:.2f} | {memory:.1%} |")

        for backend in ("tensorflow", "jax", "torch"):
            for file in files:
                row(f"`load_weights`, {backend}", backend, LOAD_WEIGHTS, file)
                row(f"`from_pretrained`, {backend}", backend, FROM_PRETRAINED, file)
        row("transformers, torch", "torch", TRANSFORMERS, FILES["huggingface"])


if __name__ == "__main__":
    main()
