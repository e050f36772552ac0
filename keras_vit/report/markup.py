"""HTML from the files in `templates/`, with every value escaped."""

import html
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parent / "templates"
_FRAGMENT = re.compile(r"<!-- fragment (\w+) -->\n")
# Control characters, and surrogates, which file names that are not UTF-8 have.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Escapes any value for text and attributes of a page; `Markup` stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """Escapes parts and puts them in a row."""
    return Markup("".join(map(escape, parts)))


def render(template: str, **values: object) -> Markup:
    """Fills a template with values, which are escaped.

    Args:
        template: name of a file in `templates/`, or `"file/fragment"` for one of several
            in a file. Line ends and indentation of a fragment are left out.
        **values: a value for each `$name` in it.

    Raises:
        KeyError: if there is no such fragment, or a value is missing.
    """
    filled = {name: escape(value) for name, value in values.items()}
    return Markup(_template(template).substitute(filled))


@cache
def _template(name: str) -> Template:
    file, _, fragment = name.partition("/")
    fragments = _fragments(file)
    return Template(fragments[fragment])


@cache
def _fragments(file: str) -> dict[str, str]:
    """The fragments of a file by name; the text before the first one is `""`."""
    text = (_FOLDER / f"{file}.html").read_text("utf-8")
    page, *parts = _FRAGMENT.split(text)
    fragments = {
        name: "".join(line.strip() for line in part.splitlines())
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }
    return {"": page, **fragments}


def style(name: str = "style") -> Markup:
    """A style sheet: that of the report, or another one in `templates/`."""
    return Markup((_FOLDER / f"{name}.css").read_text("utf-8"))


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    left: int = 1,
) -> Markup:
    """Renders a table; the first cell of each row is its header.

    Args:
        header: name of each column.
        rows: a value for each column.
        caption: text above the table.
        left: number of columns that are text, aligned left; the others are numbers.
    """
    kinds = ["text" if i < left else "number" for i in range(len(header))]
    head = join(
        render("table/column", kind=kind, name=name)
        for kind, name in zip(kinds, header, strict=True)
    )
    return render(
        "table/table",
        caption=caption,
        head=head,
        rows=join(_row(row, kinds) for row in rows),
    )


def _row(values, kinds):
    name, *others = values
    cells = join(
        render("table/cell", kind=kind, content=value)
        for kind, value in zip(kinds[1:], others, strict=True)
    )
    return render("table/row", name=name, cells=cells)


def facts(rows: Iterable[tuple[str, object]], *, caption: str) -> Markup:
    """Renders a table of names and values."""
    body = join(render("table/fact", name=name, value=value) for name, value in rows)
    return render("table/facts", caption=caption, rows=body)
