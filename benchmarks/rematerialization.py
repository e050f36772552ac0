"""Memory and recomputation of a training step on JAX, by policy of rematerialization.

    python -m benchmarks.rematerialization --model ViTB16 --batch-size 8 --rounds 5

`rematerialize=True` keeps the inputs of each block alone. JAX knows policies between that
and keeping all: here the outputs of all products of matrices, or of those with weights.
Of each, the temporary memory and the FLOPs of the compiled step of `fit`, and its time as
a multiple of that which keeps all (each in turn, the median of the rounds' ratios).
"""

import argparse
import os
import statistics
from unittest import mock

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np

import keras_vit
from benchmarks.timing import seconds

POLICIES = {
    "all": None,
    "all products": jax.checkpoint_policies.dots_saveable,
    "products with weights": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "inputs of the blocks": jax.checkpoint_policies.nothing_saveable,
}


def main():
    """Compiles a step for each policy, and runs them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViTB16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="float32", help="policy, such as mixed_bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keras.config.set_dtype_policy(args.dtype)
    steps, facts = {}, {}
    for name, policy in POLICIES.items():
        steps[name], facts[name] = step_of(args, policy)
        print(f"{name}: compiled", flush=True)
    times = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    print("kept                    temporary GiB   TFLOP   seconds   × the time")
    for name, (memory, flops) in facts.items():
        ratio = statistics.median(map(lambda a, b: a / b, times[name], times["all"]))
        middle = statistics.median(times[name])
        print(f"{name:22}  {memory:13.2f}  {flops:6.2f}  {middle:8.2f}  {ratio:11.2f}")


def step_of(args, policy):
    """A step of training, and what XLA says of it: GiB and TFLOP."""

    def remat(function):
        return jax.checkpoint(function, policy=policy)

    model = getattr(keras_vit, args.model)(
        weights=None, classifier_activation=None, rematerialize=policy is not None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, 0.9), loss)
    model.optimizer.build(model.trainable_variables)
    images = np.zeros((args.batch_size, *model.input_shape[1:]), "float32")
    labels = np.zeros(args.batch_size, "int32")
    state = (
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
        [v.value for v in model.optimizer.variables],
        [v.value for v in model.metrics_variables],
    )
    step = jax.jit(lambda state, data: model.train_step(state, data), donate_argnums=0)
    with mock.patch("keras.remat", remat):
        compiled = step.lower(state, (images, labels)).compile()

    def run():
        nonlocal state
        _, state = compiled(state, (images, labels))
        jax.block_until_ready(state)

    run()
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**30
    return run, (memory, compiled.cost_analysis()["flops"] / 1e12)


if __name__ == "__main__":
    main()
