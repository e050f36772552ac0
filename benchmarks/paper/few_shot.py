"""Few-shot accuracy on ImageNet of checkpoints by the size of their pre-training data."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.cells import Setting, file_name
from benchmarks.paper.rows import SHOTS, FewShotModel
from keras_vit import runs
from keras_vit.data.tfds import find_prepared
from keras_vit.output_paths import partial_path


@dataclass(frozen=True)
class FewShotPoint:
    """A measured point of the chart.

    Attributes:
        model: the checkpoint.
        shots: training images of each class.
        accuracy: share of correct test images.
        half_width: half of its 95 % interval.
    """

    model: FewShotModel
    shots: int
    accuracy: float
    half_width: float


@dataclass(frozen=True)
class FewShotCell:
    """A checkpoint that is judged with a few images of each class.

    Args:
        model: the checkpoint.
        setting: the machine and the folders.
        data: name of the data set in TensorFlow Datasets, or a folder.
        split: the split that is predicted.
        shots: training images of each class.
    """

    model: FewShotModel
    setting: Setting
    data: str = "imagenet2012"
    split: str = "validation"
    shots: int = SHOTS

    @property
    def title(self) -> str:
        """The checkpoint and the measurement in print."""
        return f"{self.model.name} ({self.model.data}), {self.shots}-shot"

    @property
    def path(self) -> Path:
        """Path of the result."""
        name = f"{file_name(f'{self.model.name} {self.model.data}')}.json"
        return self.setting.output / "few-shot" / name

    def missing(self) -> str:
        """Names the data that is not there; `""` if it is."""
        if Path(self.data).exists():
            return ""
        if find_prepared(self.data, self.setting.data_dir) is not None:
            return ""
        return f"data not prepared: tfds build {self.data}"

    def point(self) -> FewShotPoint | None:
        """The result, or `None` if there is none yet."""
        if not self.path.exists():
            return None
        row = json.loads(self.path.read_text("utf-8"))["results"][0]
        half_width = (row["accuracy_high"] - row["accuracy_low"]) / 2
        return FewShotPoint(self.model, self.shots, row["accuracy"], half_width)

    def run(self) -> None:
        """Measures the accuracy; features that were computed before are not again."""
        if self.point() is not None:
            return
        found = runs.evaluate_representation(
            self.model.preset,
            self.data,
            protocol="few-shot",
            settings={"shots": (self.shots,), "seeds": tuple(self.setting.seeds)},
            split=self.split,
            cache_dir=self.setting.output / "features",
            data_dir=self.setting.data_dir,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with partial_path(self.path) as part:
            Path(part).write_text(json.dumps(found.summary()), "utf-8")

    def command(self) -> str:
        """The command that measures the same."""
        words = ["evaluate", self.model.preset, self.data, "--protocol", "few-shot"]
        words += ["--shots", self.shots, "--seeds", *self.setting.seeds]
        words += ["--split", self.split]
        if self.setting.data_dir is not None:
            words += ["--data-dir", self.setting.data_dir]
        return shlex.join(["keras-vit", *map(str, words)])
