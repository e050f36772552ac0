"""Plans as text and as JSON."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from keras_vit.planning.chips import GIB
from keras_vit.tables import table

if TYPE_CHECKING:
    from keras_vit.planning.plan import Plan

_PACKAGES = ("keras", "jax", "libtpu", "jax-cuda12-pjrt")
NOTHING_RAN = (
    "Nothing has run: the program is compiled, and times are predictions from published "
    "peak rates, which no program reaches."
)


def page(plan: Plan) -> str:
    """Formats a plan as text."""
    parts = [_head(plan), _memory(plan)]
    if plan.refusal:
        parts.append(f"The compiler: {plan.refusal}")
    else:
        parts += [_flops(plan), _collectives(plan)]
        if plan.fits is not False:
            parts.append(_times(plan))
    if plan.advice:
        lines = "\n".join(f"- {line}" for line in plan.advice)
        parts.append(f"What to change (each figure with 'about' is an estimate)\n{lines}")
    return "\n\n".join(part for part in [*parts, NOTHING_RAN] if part)


def versions() -> dict[str, str]:
    """Returns the versions of the installed packages that take part in compiling."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {name: found[name] for name in _PACKAGES if name in found}


def _head(plan):
    recipe, number = plan.recipe, len(plan.target.devices)
    height, width = plan.config["image_size"]
    classes = f"{plan.config['classes']:,} classes"
    replicas = plan.mesh.get("batch", 1)
    steps = f"{recipe.steps:,} steps of {recipe.batch_size:,} images"
    if recipe.gradient_accumulation_steps > 1:
        steps += f", {recipe.micro_batch_size:,} at a time"
    if recipe.rematerialize:
        steps += ", rematerialized"
    mesh = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    rows = [
        (
            "model",
            f"{plan.model}, {plan.parameters:,} parameters, {height} × {width} pixels, "
            f"{plan.objective or classes}, {plan.dtype}",
        ),
        ("recipe", f"{type(recipe).__name__}: {steps}"),
        ("devices", f"{plan.target.name}: {number} × {plan.target.device_name}"),
        (
            "strategy",
            f"{plan.strategy}{f' ({mesh})' if mesh else ''}, "
            f"{plan.images // replicas:,} images at a time for each "
            f"{'device' if replicas == number else f'{number // replicas} devices'}",
        ),
        ("compiled", f"in {plan.seconds:,.0f} s with {used}"),
    ]
    return table(rows, left=(0, 1))


def _memory(plan):
    memory = plan.memory
    names = ("weights", "optimizer", "batch", "temporaries", "program", "peak")
    rows = [(f"  {n}", _gib(getattr(memory, n))) for n in names if getattr(memory, n)]
    verdict = ""
    if plan.fits is not None:
        capacity = f"of {_gib(memory.capacity)} in a {plan.target.device_name}"
        verdict = f"\n  DOES NOT FIT: more than there is {capacity}"
        if plan.fits:
            left = memory.capacity - memory.peak
            share = left / memory.capacity
            verdict = f"\n  fits, with {_gib(left)} ({share:.0%}) left {capacity}"
    return f"memory of a device\n{table(rows, left=(0,))}{verdict}"


def _flops(plan):
    rows = [("  3 × the model's forward pass", f"{plan.model_flops:.4g}")]
    if plan.flops:
        rows = [
            ("  as XLA counts them, loops once", f"{plan.flops:.4g}"),
            *rows,
            ("  the second, of the first", f"{plan.model_flops / plan.flops:.1%}"),
        ]
    return f"floating-point operations of a device and step\n{table(rows, left=(0,))}"


def by_kind(plan: Plan) -> Iterator[dict[str, Any]]:
    """Yields, for each kind of collective and size of group, its runs and bytes sent."""
    groups = {}
    for one in plan.collectives:
        row = groups.setdefault((one.kind, one.devices), [0, 0, False])
        row[0] += one.times
        row[1] += one.sent_bytes
        row[2] |= one.at_least
    for (kind, devices), (times, sent, at_least) in sorted(groups.items()):
        yield {
            **{"kind": kind, "devices": devices, "times": times},
            **{"sent_bytes": sent, "at_least": at_least},
        }


def _collectives(plan):
    if not plan.collectives:
        return "no collectives"
    rows = [("  kind", "among", "times", "sent")]
    for row in by_kind(plan):
        times = f"{'≥ ' if row['at_least'] else ''}{row['times']}"
        sent = f"{row['sent_bytes'] / 2**20:,.1f} MiB"
        rows.append((f"  {row['kind']}", str(row["devices"]), times, sent))
    return f"collectives of a device and step\n{table(rows, left=(0,))}"


def _times(plan):
    line = plan.roofline
    if line is None:
        return "No times are predicted for a CPU, of which no peak rates are published."
    chip = plan.target.chip
    rows = [
        (
            "  floating-point operations",
            _ms(line.compute),
            f"{chip.flops / 1e12:,.0f} TFLOP/s",
        ),
        ("  memory", _ms(line.memory), f"{chip.memory_rate / 1e9:,.0f} GB/s"),
        ("  links", _ms(line.links), f"{chip.link_rate / 1e9:,.0f} GB/s sent"),
    ]
    title = f"seconds of a step at the peak rates of a chip ({chip.source})"
    slowest = max(("compute", "memory", "links"), key=lambda name: getattr(line, name))
    bound = {"compute": "floating-point operations"}.get(slowest, slowest)
    accumulated = plan.recipe.gradient_accumulation_steps
    each = f", {accumulated} of them an update" if accumulated > 1 else ""
    return (
        f"{title}\n{table(rows, left=(0,))}\n"
        f"  a step: {_ms(line.step)} if all overlap (bound by {bound}), "
        f"{_ms(line.in_turn)} one after the other{each}\n"
        f"  {plan.images_per_second:,.0f} images/s, {plan.days:,.2f} days for the recipe's "
        f"{plan.recipe.steps:,} steps: predicted, if all overlap"
    )


def summary(plan: Plan) -> dict[str, Any]:
    """Returns a plan as a dictionary that JSON can hold."""
    chip, memory = plan.target.chip, plan.memory
    return {
        "model": plan.model,
        "objective": plan.objective,
        "parameters": plan.parameters,
        "dtype": plan.dtype,
        "config": plan.config,
        "devices": plan.target.name,
        "num_devices": len(plan.target.devices),
        "chip": asdict(chip) if chip else None,
        "strategy": plan.strategy,
        "mesh": dict(plan.mesh),
        "recipe": {"name": type(plan.recipe).__name__, **asdict(plan.recipe)},
        "images": plan.images,
        "fits": plan.fits,
        "refusal": plan.refusal,
        "memory": {**asdict(memory), "peak": memory.peak},
        "flops": plan.flops,
        "model_flops": plan.model_flops,
        "moved_bytes": plan.moved_bytes,
        "collectives": list(by_kind(plan)),
        "predicted": {
            **asdict(plan.roofline),
            "step": plan.roofline.step,
            "in_turn": plan.roofline.in_turn,
            "images_per_second": plan.images_per_second,
            "days": plan.days,
        }
        if plan.roofline
        else None,
        "state_by_strategy": dict(plan.states),
        "advice": list(plan.advice),
        "compile_seconds": plan.seconds,
        "packages": versions(),
    }


def _gib(size):
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:,.2f} MiB"


def _ms(seconds):
    return f"{1000 * seconds:,.1f} ms"
