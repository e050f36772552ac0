"""Text and tables as HTML."""

import html
import re
from collections.abc import Iterable, Sequence

# What no page may hold: control characters, and halves of characters, as file names
# that are no UTF-8 have them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def escape(text) -> str:
    """Any text as a part of a page, also within an attribute."""
    return html.escape(_FORBIDDEN.sub("\ufffd", str(text)), quote=True)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    left: int = 1,
) -> str:
    """A table whose cells are HTML; the first `left` columns are texts, others numbers.

    The first cell of a row is its header.
    """
    aligned = [("" if i < left else ' class="number"') for i in range(len(header))]
    columns = list(zip(header, aligned, strict=True))
    head = "".join(f'<th scope="col"{align}>{name}</th>' for name, align in columns)
    body = "".join(_row(row, aligned) for row in rows)
    return (
        f'<div class="scroll"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells, aligned):
    first, *others = cells
    numbers = zip(others, aligned[1:], strict=True)
    return (
        f'<tr><th scope="row">{first}</th>'
        + "".join(f"<td{align}>{cell}</td>" for cell, align in numbers)
        + "</tr>"
    )


def facts(rows: Iterable[tuple[str, object]], *, caption: str) -> str:
    """A table of names and values, which are escaped."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows
    )
    return (
        f'<div class="scroll"><table class="facts"><caption>{escape(caption)}</caption>'
        f"<tbody>{body}</tbody></table></div>"
    )
