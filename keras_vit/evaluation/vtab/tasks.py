"""The nineteen tasks of VTAB-1k as rows: data set, splits, label."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras_vit import arguments
from keras_vit.data.records import Label, StoredLabel
from keras_vit.evaluation.vtab.labels import (
    GroupedLabel,
    clevr_count,
    clevr_distance,
    kitti_distance,
)

GROUPS = ("natural", "specialized", "structured")
NATURAL, SPECIALIZED, STRUCTURED = GROUPS
TRAIN, VALIDATION = 800, 200  # examples of VTAB-1k
LABEL = StoredLabel("label")


@dataclass(frozen=True)
class Splits:
    """Places of the 200 validation examples and of the test examples in a data set.

    The 800 training examples are the first of its split "train". Percentages are rounded
    down to whole examples.

    Attributes:
        validation: split of the validation examples.
        validation_start: percentage of that split before the first of them.
        test: split of the test examples, all from `test_start` on.
        test_start: percentage of that split before the first of them.
    """

    validation: str = "validation"
    validation_start: int = 0
    test: str = "test"
    test_start: int = 0

    def expressions(self, num_examples: Mapping[str, int]) -> dict[str, str]:
        """The splits in the notation of TensorFlow Datasets, with absolute numbers.

        Args:
            num_examples: number of examples in each split of the data set.

        Returns:
            Expressions of `"train"`, `"validation"` and `"test"`.

        Raises:
            ValueError: if the data set has too few examples, or lacks a split.
        """
        for split in ("train", self.validation, self.test):
            arguments.one_of(split, tuple(num_examples), "split")
        start = num_examples[self.validation] * self.validation_start // 100
        test_start = num_examples[self.test] * self.test_start // 100
        end = start + VALIDATION
        last = test_start if self.test == self.validation else num_examples[self.validation]
        if last < end:
            raise ValueError(
                f"VTAB takes {VALIDATION} examples of the split {self.validation!r}, from "
                f"number {start} on, which no other split has. Received: splits of "
                f"{dict(num_examples)} examples. Prepare the whole data set."
            )
        first_taken = start if self.validation == "train" else num_examples["train"]
        if first_taken < TRAIN:
            raise ValueError(
                f"VTAB takes the first {TRAIN} examples of the split 'train', which no "
                f"other split has. Received: splits of {dict(num_examples)} examples. "
                "Prepare the whole data set."
            )
        return {
            "train": f"train[:{TRAIN}]",
            "validation": f"{self.validation}[{start}:{end}]",
            "test": f"{self.test}[{test_start}:]" if self.test_start else self.test,
        }


@dataclass(frozen=True)
class Task:
    """A task of VTAB-1k.

    Attributes:
        name: name of the task.
        group: `"natural"`, `"specialized"` or `"structured"`.
        data_set: name in TensorFlow Datasets, with its configuration.
        num_classes: number of classes.
        splits: places of its examples in the data set.
        label: returns the class from the values of a record.
        value_range: values in the images that are black and white; `None` for 0 and 255.
    """

    name: str
    group: str
    data_set: str
    num_classes: int
    splits: Splits = Splits()
    label: Label = LABEL
    value_range: tuple[float, float] | None = None


AFTER_60, AFTER_90 = Splits("train", 60, "train", 80), Splits("train", 90)
CLEVR = Splits("train", 90, "validation")  # its test split has no labels
DSPRITES, NORB = Splits("train", 80, "train", 90), Splits("test", 0, "test", 50)
LOCATION = GroupedLabel("label_x_position", num_classes=32, num_groups=16)
ORIENTATION = GroupedLabel("label_orientation", num_classes=40, num_groups=16)
AZIMUTH, ELEVATION = StoredLabel("label_azimuth"), StoredLabel("label_elevation")
MASK = (0.0, 1.0)  # images of zeros and ones

_ROWS = (
    Task("caltech101", NATURAL, "caltech101", 102, AFTER_90),
    Task("cifar100", NATURAL, "cifar100", 100, AFTER_90),
    Task("dtd", NATURAL, "dtd", 47),
    Task("flowers102", NATURAL, "oxford_flowers102", 102),
    Task("pets", NATURAL, "oxford_iiit_pet", 37, Splits("train", 80)),
    Task("sun397", NATURAL, "sun397/tfds", 397),
    Task("svhn", NATURAL, "svhn_cropped", 10, AFTER_90),
    Task("camelyon", SPECIALIZED, "patch_camelyon", 2),
    Task("eurosat", SPECIALIZED, "eurosat/rgb", 10, AFTER_60),
    Task("resisc45", SPECIALIZED, "resisc45", 45, AFTER_60),
    Task("retinopathy", SPECIALIZED, "diabetic_retinopathy_detection/btgraham-300", 5),
    Task("clevr_count", STRUCTURED, "clevr", 8, CLEVR, clevr_count),
    Task("clevr_distance", STRUCTURED, "clevr", 6, CLEVR, clevr_distance),
    Task("dmlab", STRUCTURED, "dmlab", 6),
    Task("kitti_distance", STRUCTURED, "kitti", 4, label=kitti_distance),
    Task("dsprites_location", STRUCTURED, "dsprites", 16, DSPRITES, LOCATION, MASK),
    Task("dsprites_orientation", STRUCTURED, "dsprites", 16, DSPRITES, ORIENTATION, MASK),
    Task("smallnorb_azimuth", STRUCTURED, "smallnorb", 18, NORB, AZIMUTH),
    Task("smallnorb_elevation", STRUCTURED, "smallnorb", 9, NORB, ELEVATION),
)
# The tasks by name, in the order of the paper's groups.
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ROWS})


def chosen(tasks: Iterable[str] | None) -> tuple[Task, ...]:
    """Returns the tasks of these names or groups, in the order of `TASKS`.

    Args:
        tasks: names of tasks or groups; `None` for all.

    Raises:
        ValueError: if there is no task, or a name is unknown.
    """
    if tasks is None:
        return tuple(TASKS.values())
    names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    for name in names:
        arguments.one_of(name, (*GROUPS, *TASKS), "tasks")
    found = tuple(t for t in TASKS.values() if t.name in names or t.group in names)
    if not found:
        raise ValueError("`tasks` must name one task or more. Received: none")
    return found
