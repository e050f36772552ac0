"""Results as tables and as a picture."""

from textwrap import fill

from benchmarks.speed.race import limit, measured, rate, ratio

OURS = "keras_vit"
HEADER = (
    *("", "backend", "GFLOP/s", "of the limit", "ours is × as fast", "seconds"),
    *("import s", "build s", "first call s", "peak GiB"),
)


def title(result) -> str:
    """Title of a result."""
    case = result["case"]
    task, batch = case["task"], case["batch_size"]
    return f"{case['model']}, {case['image_size']} px, {task}, batch {batch}"


def table(result) -> str:
    """Markdown of all contenders, the fastest first, compared with keras_vit."""
    found = sorted(measured(result), key=lambda one: -rate(result, one))
    ours = {one["backend"]: one for one in found if one["name"] == OURS}
    top, of = limit(result)
    lines = [HEADER, ["---", "---", *["---:"] * (len(HEADER) - 2)]]
    for one in found:
        mine = ours.get(one["backend"])
        compared = "" if one is mine or mine is None else f"{ratio(mine, one):.2f}"
        seconds = sorted(one["seconds"])[len(one["seconds"]) // 2]
        lines.append(
            (
                *(one["name"], one["backend"], f"{rate(result, one) / 1e9:.0f}"),
                *(f"{rate(result, one) / top:.0%}", compared, f"{seconds:.3g}"),
                *(f"{one[f'{what}_seconds']:.1f}" for what in ("import", "build", "first")),
                f"{one['peak_bytes'] / 2**30:.1f}",
            )
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text += f"\n\nA matrix product ({of}) reaches {top / 1e9:.0f} GFLOP/s."
    for name, backend, reason in missing(result):
        text += f" {name} ({backend}) is not there: {reason}."
    return text


def missing(result):
    """(name, backend, reason) of contenders that were not measured."""
    for one in result["contenders"]:
        if "missing" in one:
            reason = " ".join(one["missing"].split())[:90]
            yield one["name"], one["backend"], f"`{reason}`"


def section(results) -> str:
    """Markdown of all results."""
    rounds = sorted({len(one["seconds"]) for r in results for one in measured(r)})
    named = [r["machine"].split(", load ") for r in results]
    loads = sorted((load for _, load in named), key=float)
    machines = sorted({result["date"] for result in results}) + sorted(
        {machine for machine, _ in named}
    )
    versions = {}
    for result in results:
        for one in measured(result):
            versions |= one["versions"]
    between = f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else rounds[0]
    text = (
        f"{', '.join(machines)}, load {loads[0]} to {loads[-1]}; "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + f". Medians of {between} rounds, in each of which every contender runs "
        "once (for training, every one of a backend), in a process of its "
        "own. FLOPs are those of the whole model, three times as many for a step of "
        "training; ours computes fewer, as it leaves out of the last block what nothing "
        "reads. *× as fast* is the median of the rounds' ratios. `tensorflow-xla` is "
        "TensorFlow with `jit_compile=True`, which Keras leaves off on a CPU unless it is "
        "asked to."
    )
    parts = [fill(text, 100, break_on_hyphens=False)]
    for result in results:
        parts += [f"### {title(result)}", table(result)]
    return "\n\n".join(parts) + "\n"


def picture(results, path):
    """Bars of all contenders, a panel for each result, with the limit as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [len(measured(result)) for result in results]
    figure, panels = pyplot.subplots(
        *(len(results), 1),
        figsize=(8, 0.9 * len(results) + 0.3 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for panel, result in zip(panels[:, 0], results, strict=True):
        found = sorted(measured(result), key=lambda one: rate(result, one))
        names = [f"{one['name']} ({one['backend']})" for one in found]
        colors = ["#2a6f97" if one["name"] == OURS else "#b8c4cc" for one in found]
        rates = [rate(result, one) / 1e9 for one in found]
        bars = panel.barh(names, rates, color=colors)
        # On white, so that the line does not cross out a number.
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        panel.bar_label(bars, fmt="%.0f", padding=3, fontsize=8, bbox=paper)
        panel.axvline(limit(result)[0] / 1e9, color="#9b2226", linewidth=1)
        panel.set_title(title(result), fontsize=9, loc="left")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("GFLOP/s; the line is a matrix product's", fontsize=8)
    figure.savefig(path, dpi=120)
