"""Images per second on a GPU, and the share of the rate of its matrix products.

Each contender is measured in a process of its own: at the batch that is asked for, or at
the largest power of two that its memory holds. Images lie in the GPU's memory; what is
timed is steps one after the other, the last one waited for. Training has weights in
float32 and computes in bfloat16 (`mixed_bfloat16`, `torch.autocast`), inference has both
in bfloat16. The matrix product that all are compared with is the same process', of
bfloat16, at the start and at the end.

    python benchmarks/gpu.py --folder gpu --model ViTB16 --task training inference
    python benchmarks/gpu.py --folder gpu --model ViTL16 --batch-size 128 --flash off
    python benchmarks/gpu.py --folder gpu --write

A folder keeps what was measured; the same command goes on with the rest.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))

from benchmarks.speed.cases import CLASSES, TASKS, TRAINING

# Name, and what computes it; "compiled" is torch.compile.
CONTENDERS = (
    *("keras_vit jax", "keras_vit torch", "keras_vit torch compiled"),
    *("timm torch", "timm torch compiled"),
    *("transformers torch", "transformers torch compiled"),
)
MODELS = ("ViTB16", "ViTL16", "ViTH14")
SIDE = 8192  # of the matrices
MOST = 4096  # images
WARM_UP, SECONDS, BLOCKS = 3, 2.0, 5  # steps; of a block of steps; blocks
LIMIT = 540  # seconds for a contender


def main():
    """Measures cases without a result, or writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("gpu"))
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--image-size", nargs="+", type=int, default=[224])
    parser.add_argument("--batch-size", type=int, help="the largest that fits, without")
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--flash", choices=("on", "off"), default="on")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(**json.loads(args.one))), flush=True)
        return
    if args.write:
        print(table(sorted(args.folder.glob("*.json"))))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    asked = product(args.model, args.image_size, args.task, args.contender)
    for model, image_size, task, contender in asked:
        one = {"model": model, "image_size": image_size, "task": task}
        one |= {"contender": contender, "flash": args.flash == "on"}
        one |= {"batch_size": args.batch_size}
        name = "_".join(str(value).replace(" ", "-") for value in one.values())
        path = args.folder / f"{name}.json"
        if not path.exists():
            found = in_a_process(one)
            path.write_text(json.dumps({**one, **found}, indent=1))
            print(line({**one, **found}), flush=True)


def in_a_process(one):
    """Measures in a process of its own; without a batch size, at the largest that fits."""
    if one["batch_size"]:
        return run(one)
    best, batch_size = {"failed": "no image fits"}, 16
    while batch_size <= MOST:
        found = run({**one, "batch_size": batch_size})
        if "failed" in found:
            return best if "seconds" in best else found
        best, batch_size = {**found, "batch_size": batch_size}, 2 * batch_size
    return best


def run(one):
    """Runs a measurement in a process that ends after it."""
    backend = one["contender"].split()[1]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", json.dumps(one)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LIMIT} s"}
    if done.returncode:
        said = [text for text in done.stderr.splitlines() if text.strip()]
        return {"failed": said[-1][:300] if said else f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def measured(contender, model, image_size, task, batch_size, flash):
    """Measures seconds of a step, memory, and the rate of matrix products."""
    from benchmarks.speed.cases import Case

    case = Case.of(model, task, image_size, batch_size)
    package, backend, *compiled = contender.split()
    kit = Jax() if backend == "jax" else Torch(bool(compiled))
    before = kit.product()
    step, wait = kit.step(package, case, flash)
    for _ in range(WARM_UP):
        step()
    wait()
    start = time.perf_counter()
    step()
    wait()
    steps = max(1, round(SECONDS / (time.perf_counter() - start)))
    seconds = []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        seconds.append((time.perf_counter() - start) / steps)
    return {
        "seconds": seconds,
        "flops": case.flops,
        "peak_bytes": kit.peak_bytes(),
        "product_flops": [before, kit.product()],
        "device": kit.device(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": kit.versions(package),
    }


class Kit:
    """Measurements that both backends share."""

    def product(self):
        """FLOP/s of a product of bfloat16 matrices."""
        multiply, wait = self.multiplication()
        for _ in range(3):
            multiply()
        wait()
        start = time.perf_counter()
        for _ in range(20):
            multiply()
        wait()
        return 20 * 2 * SIDE**3 / (time.perf_counter() - start)

    def versions(self, package):
        """Versions of the packages that compute."""
        from importlib.metadata import version

        names = {"keras_vit": "keras"}.get(package, package), self.name
        return {name: version(name) for name in names}


class Torch(Kit):
    """Measurements on torch, eager or with `torch.compile`."""

    name = "torch"

    def __init__(self, compiled):
        import torch

        self.torch, self.compiled = torch, compiled
        self.place = "cuda" if torch.cuda.is_available() else "cpu"

    def device(self):
        """Human-readable description."""
        if self.place == "cpu":
            return "CPU"
        return self.torch.cuda.get_device_name()

    def wait(self):
        """Waits until the device is idle."""
        if self.place == "cuda":
            self.torch.cuda.synchronize()

    def peak_bytes(self):
        """Largest amount of memory in use, in bytes."""
        return self.torch.cuda.max_memory_allocated() if self.place == "cuda" else None

    def multiplication(self):
        """A product, and how to wait for it."""
        torch = self.torch
        one = torch.randn(SIDE, SIDE, device=self.place, dtype=torch.bfloat16)
        return lambda: torch.mm(one, one), self.wait

    def step(self, package, case, flash):
        """A step of training or inference, and how to wait for it."""
        from benchmarks.speed import contenders

        torch = self.torch
        torch.manual_seed(0)
        if not flash:
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_mem_efficient_sdp(False)
            torch.backends.cuda.enable_cudnn_sdp(False)
        contenders.PREPARATIONS.get(package, tuple)()
        trains, halves = case.task == TRAINING, torch.bfloat16
        images = torch.randn(
            *(case.batch_size, case.image_size, case.image_size, 3), device=self.place
        )
        labels = torch.arange(case.batch_size, device=self.place) % CLASSES
        if package == "keras_vit":
            return self._step_of_keras(case, images, labels), self.wait
        images = images.permute(0, 3, 1, 2).contiguous()
        model = getattr(contenders, package)(case).to(self.place).train(trains)
        if not trains:
            model, images = model.to(halves), images.to(halves)
        forward = torch.compile(model) if self.compiled else model

        def infer():
            with torch.inference_mode():
                return forward(images)

        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)

        def train():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.place, halves):
                outputs = forward(images)
                logits = getattr(outputs, "logits", outputs)
                loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            optimizer.step()

        return (train if trains else infer), self.wait

    def _step_of_keras(self, case, images, labels):
        torch, model = self.torch, keras_model(case)
        if case.task == TRAINING:
            model.jit_compile = self.compiled
            # Builds what `torch.compile` cannot trace the building of: loss, slots.
            model.train_on_batch(images, labels)
            # `train_on_batch` waits for its loss; `fit` with no callback does not.
            return lambda: model.train_function([(images, labels)])
        forward = torch.compile(model) if self.compiled else model

        def infer():
            with torch.inference_mode():
                return forward(images, training=False)

        return infer


class Jax(Kit):
    """Measurements on JAX, in one compiled step."""

    name = "jax"

    def __init__(self):
        import jax

        self.jax = jax

    def device(self):
        """Human-readable description."""
        return self.jax.devices()[0].device_kind

    def peak_bytes(self):
        """Largest amount of memory in use, in bytes."""
        statistics = self.jax.devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use")

    def multiplication(self):
        """A product, and how to wait for it."""
        jax = self.jax
        one = jax.random.normal(jax.random.key(0), (SIDE, SIDE), "bfloat16")
        multiply, last = jax.jit(lambda a, b: a @ b), []

        def once():
            last[:] = [multiply(one, one)]

        return once, lambda: jax.block_until_ready(last)

    def step(self, package, case, flash):
        """A step of training or inference, and how to wait for it."""
        import keras

        del package
        if not flash:
            keras.config.disable_flash_attention()
        jax, model = self.jax, keras_model(case)
        shape = (case.batch_size, case.image_size, case.image_size, 3)
        images = jax.random.normal(jax.random.key(0), shape)
        labels = jax.numpy.arange(case.batch_size) % CLASSES
        weights = [v.value for v in model.trainable_variables]
        others = [v.value for v in model.non_trainable_variables]
        if case.task != TRAINING:
            forward = jax.jit(lambda w, o, x: model.stateless_call(w, o, x)[0])
            last = []

            def infer():
                last[:] = [forward(weights, others, images)]

            return infer, lambda: jax.block_until_ready(last)
        model.optimizer.build(model.trainable_variables)
        slots = [v.value for v in model.optimizer.variables]
        sums = [v.value for v in model.metrics_variables]
        state = weights, others, slots, sums
        compiled = jax.jit(model.train_step, donate_argnums=0)

        def train():
            nonlocal state
            _, state = compiled(state, (images, labels))

        return train, lambda: jax.block_until_ready(state)


def keras_model(case):
    """Model of keras_vit, compiled for training."""
    import keras

    from benchmarks.speed import contenders

    trains = case.task == TRAINING
    keras.config.set_dtype_policy("mixed_bfloat16" if trains else "bfloat16")
    model = contenders.keras_vit(case)
    if trains:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, 0.9), loss)
    return model


def line(one):
    """Human-readable description."""
    said = f"{one['contender']}, {one['model']}, {one['image_size']} px, {one['task']}"
    if "failed" in one:
        return f"{said}: {one['failed']}"
    return (
        f"{said}, batch {one['batch_size']}: {speed(one):,.0f} images/s, {share(one):.0%}"
    )


def speed(one):
    """Images per second in the median block."""
    return one["batch_size"] / sorted(one["seconds"])[len(one["seconds"]) // 2]


def share(one):
    """Share of the rate of matrix products, counting the FLOPs of a whole model."""
    rate = one["flops"] / one["batch_size"] * speed(one)
    return rate / max(one["product_flops"])


HEADER = ("model", "px", "task", "", "flash", "batch", "images/s", "share", "peak GiB")


def table(paths):
    """Markdown of all results."""
    lines = [HEADER, ["---", "---:", "---", "---", "---", *["---:"] * 4]]
    for path in paths:
        one = json.loads(path.read_text())
        flash = "on" if one["flash"] else "off"
        first = (one["model"], one["image_size"], one["task"], one["contender"], flash)
        if "failed" in one:
            lines.append((*first, one["batch_size"] or "", one["failed"], "", ""))
            continue
        peak = one["peak_bytes"]
        lines.append(
            (
                *first,
                *(one["batch_size"], f"{speed(one):,.0f}", f"{share(one):.0%}"),
                f"{peak / 2**30:.1f}" if peak else "",
            )
        )
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in lines)


if __name__ == "__main__":
    main()
