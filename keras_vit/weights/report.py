"""What a load did."""

from dataclasses import dataclass, field

from keras_vit.log import log


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a checkpoint and of each variable of a model.

    Attributes:
        source: the checkpoint.
        loaded: paths of the variables that were filled.
        resized: path → (shape in the checkpoint, shape in the model).
        dropped: name of a tensor that was not used → the reason.
        fresh: paths of the variables that keep the values they had.
        layout: name of the checkpoint's layout.
    """

    source: str
    loaded: tuple[str, ...]
    resized: dict[str, tuple] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    layout: str = "keras"

    def __str__(self):
        lines = [f"{self.source}: {len(self.loaded)} variables loaded"]
        for path, (old, new) in self.resized.items():
            lines.append(f"  resized {path} from {old} to {new}")
        for reason in dict.fromkeys(self.dropped.values()):
            names = [name for name, why in self.dropped.items() if why == reason]
            told = names if len(names) <= 4 else [some(names)]
            lines += [f"  dropped {name}: {reason}" for name in told]
        for path in self.fresh:
            lines.append(f"  left as it was: {path}")
        return "\n".join(lines)


def tell_fresh_head(source: str, num_classes: int) -> None:
    """Says in one line of the log that a head did not come from the checkpoint."""
    log.warning(
        "%s: the head of %d classes is not in the checkpoint and keeps the values it has, "
        "which are zeros if it is new.",
        source,
        num_classes,
    )


def some(names: list[str]) -> str:
    """All of a few names, or the first of many and how many there are."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, … ({len(names)} tensors)"
