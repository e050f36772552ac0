"""Scores of timm's checkpoints on ImageNet-1k and the test sets of the same classes.

The rows are in `timm_scores.csv`: name and image size in timm, and top-1 in percent. They
were taken from the tables in `results/` of huggingface/pytorch-image-models, those of
ImageNet, ReaL, A and Sketch as of its commit 7479d451a6df, those of V2 and R as of
36d930ffc943, which lacks the models that came later. Only rows of presets are here.
"""

import csv
import functools
from pathlib import Path

# Names of the data sets: those that are read to people, and timm's tables.
DATA_SETS = {
    "imagenet2012": ("ImageNet-1k", "results-imagenet.csv"),
    "imagenet_real": ("ImageNet-ReaL", "results-imagenet-real.csv"),
    "imagenet_v2": ("ImageNetV2", "results-imagenetv2-matched-frequency.csv"),
    "imagenet_a": ("ImageNet-A", "results-imagenet-a.csv"),
    "imagenet_r": ("ImageNet-R", "results-imagenet-r.csv"),
    "imagenet_sketch": ("ImageNet-Sketch", "results-sketch.csv"),
}


@functools.cache
def timm_scores() -> dict[tuple[str, int], dict[str, float]]:
    """Top-1 in percent by data set, of each checkpoint that timm's tables hold.

    Returns:
        a dictionary from (timm's name, image size in pixels) to a dictionary from a name of
        `DATA_SETS` to top-1 in percent; data sets without a score are left out.
    """
    path = Path(__file__).with_suffix(".csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["model"], int(row["image_size"])): {
                name: float(row[name]) for name in DATA_SETS if row[name]
            }
            for row in csv.DictReader(file)
        }
