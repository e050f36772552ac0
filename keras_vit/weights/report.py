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
        resized: path → (shape in the checkpoint, shape in the model).
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

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} variables loaded"]
        for path, (old, new) in self.resized.items():
            lines.append(f"  resized {path} from {old} to {new}")
        lines += [f"  dropped {text}" for text in describe_dropped(self.dropped)]
        for path in self.fresh:
            lines.append(f"  unchanged: {path}")
        return "\n".join(lines)


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
