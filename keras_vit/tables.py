"""Tables as text."""

from collections.abc import Collection, Iterable, Sequence


def table(rows: Iterable[Sequence[str]], left: Collection[int]) -> str:
    """Aligns texts in columns: to the left for columns in `left`, else to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i in left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def shape_text(shape: Iterable[int]) -> str:
    """A shape as text, such as `"224 × 224"`."""
    return " × ".join(map(str, shape))


def percent(share: float | None) -> str:
    """A share in percent as text; a dash for `None`."""
    return "–" if share is None else f"{100 * share:.1f} %"


def percent_range(low: float, high: float) -> str:
    """Two shares in percent as text, such as `"45.2–94.8 %"`."""
    return f"{100 * low:.1f}–{percent(high)}"
