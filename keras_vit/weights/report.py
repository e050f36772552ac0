"""The report on the loading of a checkpoint."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keras_vit.log import log


@dataclass(frozen=True)
class LoadReport:
    """The use of each tensor of a checkpoint and the origin of each variable of a model.

    Attributes:
        source: the checkpoint.
        loaded: paths of the variables with values of the checkpoint.
        resized: path → (shape in the checkpoint, shape in the model), of positions and of
            kernels.
        dropped: name of an unused tensor → the reason.
        fresh: paths of the variables that keep their values.
        layout: name of the checkpoint's layout.
    """

    source: str
    loaded: tuple[str, ...]
    resized: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    layout: str = "keras"

    @property
    def channels(self) -> str | None:
        """Origin of a kernel for images of other channels, or `None` if there is none."""
        for path, (old, new) in self.resized.items():
            if len(new) == 4 and old[2] != new[2]:
                number = "1 channel" if new[2] == 1 else f"{new[2]} channels"
                return f"{path} for {number}: {_extension(path, new[2])}"
        return None

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} variables loaded"]
        for path, (old, new) in self.resized.items():
            lines.append(f"  resized {path} from {old} to {new}")
        if self.channels:
            lines.append(f"  {self.channels}")
        lines += [f"  dropped {text}" for text in describe_dropped(self.dropped)]
        for path in self.fresh:
            lines.append(f"  unchanged: {path}")
        return "\n".join(lines)


def _extension(path, channels):
    """Origin of a kernel in that of RGB, as `keras_vit.channels` makes it."""
    if channels == 1:
        return "the sum over RGB"
    if path in ("patch_embedding/kernel", "stem_conv/kernel"):
        return f"RGB repeated, times 3/{channels}"
    return "RGB repeated" + ", zeros beyond" * (channels % 3 > 0)


def log_fresh_head(source: str, num_classes: int) -> None:
    """Logs that the head did not come from the checkpoint."""
    log.warning(
        "%s: the head of %d classes is not in the checkpoint and keeps its values; those "
        "of a new head are zeros.",
        source,
        num_classes,
    )


def describe_dropped(dropped: Mapping[str, str]) -> list[str]:
    """`name: reason` for each dropped tensor; of more than four of one reason, once."""
    lines = []
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, why in dropped.items() if why == reason]
        shown = names if len(names) <= 4 else [shorten_names(names)]
        lines += [f"{name}: {reason}" for name in shown]
    return lines


def shorten_names(names: list[str]) -> str:
    """All of up to four names; of more, the first three and their number."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, … ({len(names)} tensors)"


def merge_blocks(names: Iterable[str]) -> str:
    """Sorted names, in which those that differ only in the block's number are one."""
    alike = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"(block_|blocks\.|layers?\.)\d+", r"\1*", name)].append(name)
    return ", ".join(
        f"{pattern} (in {len(group)} blocks)" if len(group) > 1 else group[0]
        for pattern, group in alike.items()
    )
