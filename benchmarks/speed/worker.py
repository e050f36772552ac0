"""Process of one contender: builds it, and runs it once for each line it reads.

    python -m benchmarks.speed.worker NAME BACKEND CASE

It answers in lines of JSON: first what it took to get there, then seconds for each line.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from benchmarks.speed.cases import Case
from benchmarks.speed.contenders import CONTENDERS, PREPARATIONS, XLA

PRODUCT = "matrix product"
SIDE = 4096  # of the matrices


def main(name, backend, case):
    """Answers lines until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**facts):
        answers.write(json.dumps(facts) + "\n")

    os.environ["KERAS_BACKEND"] = backend.removesuffix(XLA)
    options = {"jit_compile": True} if backend.endswith(XLA) else {}
    try:
        PREPARATIONS.get(name, tuple)()
        start = time.perf_counter()
        if name != PRODUCT:
            import_module(name)
        imported = time.perf_counter()
        make = product if name == PRODUCT else CONTENDERS[name][1]
        do = make(Case(**json.loads(case)), **options)
        built = time.perf_counter()
        do()
        done = time.perf_counter()
    except Exception as error:  # whatever a peer raises is why it is not measured
        return answer(missing=f"{type(error).__name__}: {error}"[:300])
    answer(
        import_seconds=imported - start,
        build_seconds=built - imported,
        first_seconds=done - built,
        versions=versions(name, backend.removesuffix(XLA)),
    )
    for _ in sys.stdin:
        start = time.perf_counter()
        do()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer(seconds=seconds, peak_bytes=peak)


def product(case, jit_compile=False):
    """Product of two square float32 matrices on the backend."""
    import numpy as np

    one = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype("float32")
    backend = os.environ["KERAS_BACKEND"]
    if backend == "torch":
        import torch

        from keras_vit.layers.kernels.torch import product as quicker  # of two libraries

        one, bias = torch.from_numpy(one), torch.zeros(SIDE)
        return lambda: quicker(one, one, bias)
    if backend == "jax":
        import jax

        one, multiply = jax.numpy.asarray(one), jax.jit(lambda a, b: a @ b)
        return lambda: jax.block_until_ready(multiply(one, one))
    import tensorflow as tf

    one = tf.constant(one)
    multiply = tf.function(tf.linalg.matmul, jit_compile=jit_compile)
    return lambda: multiply(one, one).numpy()


def versions(name, backend):
    """Versions of the packages that compute."""
    found = {}
    for package in (name.replace("_", "-"), backend, "keras"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
