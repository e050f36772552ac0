"""HTML documents: a headline and sections on one page, without scripts or other files."""

import datetime
import os
from collections.abc import Sequence

from keras_vit._version import __version__
from keras_vit.output_paths import partial_path
from keras_vit.report.markup import Markup, join, render, style


def write_document(
    folder: str | os.PathLike[str],
    title: str,
    headline: Markup,
    sections: Sequence[tuple[str, str, str]],
) -> str:
    """Writes `index.html`, one page without scripts, other files or network.

    Args:
        folder: where to write the page; created if missing.
        title: title of the page.
        headline: content below the title.
        sections: (name for links, heading, content); those without content are left out.

    Returns:
        The path of the page.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "index.html")
    write_page(path, title, headline, sections)
    return path


def write_page(
    path: str | os.PathLike[str],
    title: str,
    headline: Markup,
    sections: Sequence[tuple[str, str, str]],
) -> None:
    """Writes a page to a file; see `write_document`."""
    path = os.fspath(path)
    with partial_path(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(_document(title, headline, sections))


def _document(title, headline, sections) -> Markup:
    sections = [section for section in sections if section[2]]
    date = datetime.datetime.now().astimezone()
    return render(
        "page",
        title=title,
        style=style(),
        headline=headline,
        links=join(
            render("parts/link", name=name, heading=heading)
            for name, heading, _ in sections
        ),
        sections=join(
            render("parts/section", name=name, heading=heading, content=content)
            for name, heading, content in sections
        ),
        version=__version__,
        day=f"{date:%Y-%m-%d}",
        date=f"{date:%d %B %Y, %H:%M}",
    )
