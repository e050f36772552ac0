"""Compute of every architecture, and published scores against it.

Writes parameters and GFLOPs per image of each ViT, hybrid and BiT, the exaFLOPs of the
papers' own pre-training runs (ViT, arXiv 2010.11929, table 3; BiT, arXiv 1912.11370,
section 3.1) and, beside them, EfficientNet-L2 (Noisy Student, arXiv 1911.04252), as
Markdown; and a plot of the presets' published ImageNet top-1 against GFLOPs per image.
FLOPs are twice the multiply-accumulates, and computed from the architecture.

    python benchmarks/cost_table.py
"""

import argparse
import itertools
import os
from pathlib import Path

import keras_vit
from keras_vit.cost import cost
from keras_vit.models.sizes import (
    BITS,
    EFFICIENTNETS,
    HYBRIDS,
    architecture_fields,
    paper_name,
)
from keras_vit.models.sizes import SIZES as VIT_SIZES

FOLDER = Path(__file__).parent
SIZES = (224, 384)
CLASSES = {"JFT-300M": 18_000, "ImageNet-21k": 21_843, "ImageNet-1k": 1000}
IMAGES = {"JFT-300M": 303e6, "ImageNet-21k": 14.2e6, "ImageNet-1k": 1.28e6}
# Hybrids of the paper that have no published checkpoint, and so no constructor.
UNPUBLISHED = {
    "R50+ViT-B/32": {
        "patch_size": 1,
        **VIT_SIZES["B"],
        "stem": {"num_units": (3, 4, 6, 3)},
    },
    "R50+ViT-L/16": {"patch_size": 1, **VIT_SIZES["L"], "stem": {"num_units": (3, 4, 9)}},
}
_HYBRIDS = ("R50+ViT-B/32", "R50ViTB16", "R50ViTL32", "R50+ViT-L/16")
# Table 3 of the paper: data, epochs, architectures; and BiT's own (arXiv 1912.11370,
# section 3.1: 90 epochs of BiT-S and BiT-M, 40 of BiT-L). Each at 224 pixels.
RUNS = [
    ("JFT-300M", 7, ("ViTB32", "ViTB16", "ViTL32", "ViTL16", *_HYBRIDS)),
    ("JFT-300M", 14, ("ViTL16", "ViTH14", "R50+ViT-L/16")),
    ("JFT-300M", 40, ("BiTR152x4",)),
    ("ImageNet-21k", 90, ("ViTB32", "ViTB16", "ViTL32", "ViTL16")),
    ("ImageNet-21k", 30, ("ViTL32", "ViTL16")),
    ("ImageNet-21k", 90, tuple(BITS)),
    ("ImageNet-1k", 300, ("ViTB32", "ViTB16", "ViTL32", "ViTL16")),
    ("ImageNet-1k", 90, tuple(BITS)),
]
MARKERS = {"vit": "o", "hybrid": "^", "bit": "s", "efficientnet": "*"}
BACKWARD = 2  # times the forward pass

NOTES = """\
FLOPs are two for each multiply-accumulate of matrix products and convolutions. The head
has 1000 classes; of the ViTs' last block the class token alone is computed, as the models
here do. A size in brackets is the largest that the patch size divides.
"""
RUN_NOTES = f"""\
Epochs × images × {1 + BACKWARD} × the FLOPs of a forward pass at 224 × 224 (a backward pass
is twice a forward pass). JFT-300M has 303 million images in 18,000 classes, ImageNet-21k
14.2 million in 21,843, ImageNet-1k 1.28 million in 1000. Every token of the last block is
computed, as in the paper's code. BiT's epochs are those of its own paper.
"""


def architectures():
    """Names of the constructors: first ViTs, then hybrids, BiTs and EfficientNet-L2."""
    names = [*HYBRIDS, *BITS, *EFFICIENTNETS]
    vits = [name for name in keras_vit.__all__ if name.startswith("ViT")]
    vits.sort(key=lambda name: keras_vit.describe(name).parameters)
    return [*vits, *names]


def gigaflops(name, size):
    """GFLOPs per image, and the size if the model takes none of `size` pixels."""
    step = architecture_fields(name).get("patch_size", 1)
    step = 1 if name in HYBRIDS else step
    fitting = size // step * step
    flops = 2 * keras_vit.describe(name, image_size=fitting).multiply_accumulates
    return f"{flops / 1e9:,.1f}" + (f" ({fitting})" if fitting != size else "")


def exaflops(name, data, epochs):
    """Compute of one of the paper's pre-training runs."""
    fields = UNPUBLISHED.get(name) or architecture_fields(name)
    config = {**fields, "image_size": 224, "classes": CLASSES[data]}
    if name not in BITS:
        config["full_last_block"] = True
    forward = 2 * cost(config).multiply_accumulates
    return epochs * IMAGES[data] * (1 + BACKWARD) * forward / 1e18


def models_table():
    """Markdown of parameters and GFLOPs."""
    header = ["model", "parameters", *(f"GFLOPs at {size}" for size in SIZES)]
    rows = [
        [
            paper_name(name),
            f"{keras_vit.describe(name).parameters:,}",
            *(gigaflops(name, size) for size in SIZES),
        ]
        for name in architectures()
    ]
    rows[-1][0] += f" ({gigaflops('EfficientNetL2', 800)} at 800)"  # its own resolution
    return markdown(header, rows)


def runs_table():
    """Markdown of the pre-training runs."""
    rows = [
        [named(name), data, str(epochs), f"{exaflops(name, data, epochs):,.1f}"]
        for data, epochs, names in RUNS
        for name in names
    ]
    return markdown(["model", "data", "epochs", "exaFLOPs"], rows)


def named(name):
    """The papers' name of an architecture."""
    return name if name in UNPUBLISHED else paper_name(name)


def markdown(header, rows):
    """Markdown table, with all columns but the first aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def plot(path):
    """Published top-1 of the presets against GFLOPs, at the resolution of each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    scored = [p for p in keras_vit.list_presets() if p.accuracy is not None]
    for number, family in enumerate(dict.fromkeys(p.family for p in scored)):
        color = plt.get_cmap("tab20")((2 * number + number // 10) % 20)  # dark ones first
        label = family
        for frozen, marker in itertools.product((False, True), MARKERS):
            chosen = [
                p
                for p in scored
                if (p.family, is_frozen(p), kind(p)) == (family, frozen, marker)
            ]
            if not chosen:
                continue
            axes.scatter(
                [2 * keras_vit.describe(p).multiply_accumulates / 1e9 for p in chosen],
                [p.accuracy for p in chosen],
                s=26,
                marker=MARKERS[marker],
                facecolor="none" if frozen else color,
                edgecolor=color,
                label=label,
            )
            label = None  # a family stands once in the legend
    axes.set(xscale="log", xlabel="GFLOPs per image", ylabel="ImageNet top-1, %")
    axes.set_title(
        "Circles: ViTs, triangles: hybrids, squares: BiT, stars: EfficientNet-L2\n"
        "Hollow: zero-shot, or a linear classifier of frozen features",
        fontsize=9,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))  # hides nothing
    figure.savefig(path, dpi=120)


def kind(preset):
    """Key of `MARKERS` for a preset."""
    for marker, names in (("bit", BITS), ("efficientnet", EFFICIENTNETS)):
        if preset.architecture in names:
            return marker
    return "hybrid" if preset.architecture in HYBRIDS else "vit"


def is_frozen(preset):
    """`True` if the score is that of frozen features."""
    return any(word in preset.accuracy_source for word in ("zero-shot", "frozen"))


def main():
    """Prints the tables and writes them and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=FOLDER / "COST.md")
    parser.add_argument("--plot", type=Path, default=FOLDER / "cost.png")
    args = parser.parse_args()
    plot(args.plot)
    image = os.path.relpath(args.plot, args.output.parent)
    text = "\n".join(
        [
            "# Compute\n\nWritten by `python benchmarks/cost_table.py`.\n",
            f"## One image\n\n{NOTES}\n{models_table()}\n",
            f"## The papers' pre-training runs\n\n{RUN_NOTES}\n{runs_table()}\n",
            f"## Published scores\n\n![Top-1 of the presets against GFLOPs]({image})\n",
        ]
    )
    args.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
