"""Listing of the image files in a folder, with a count of the other files."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from keras_vit.data.clutter import is_clutter
from keras_vit.data.images import image_suffixes, is_image
from keras_vit.log import log

NO_SUFFIX = "without a suffix"
# Lists, notes and arrays that lie beside images: they are not opened.
NO_IMAGES = {
    *(".cfg", ".csv", ".db", ".gz", ".h5", ".html", ".ini", ".ipynb", ".json", ".jsonl"),
    *(".log", ".mat", ".md", ".npy", ".npz", ".pdf", ".pkl", ".py", ".rst", ".sh", ".tar"),
    *(".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip"),
    *(".crdownload", ".download", ".part", ".partial", ".tmp"),  # incomplete downloads
}
# A file with an unknown suffix may be a camera's raw file, which is a kind of TIFF: Pillow
# would read its thumbnail.
RAW_FORMAT = "TIFF"
READERS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pip install pillow-heif"),
    **dict.fromkeys((".avif", ".avifs"), "pip install 'pillow>=11.3'"),
}


class Listing:
    """Walks through folders, and counts the files that are left out.

    Attributes:
        others: number of files that are no images, by suffix.
    """

    others: Counter[str]

    def __init__(self) -> None:
        self.others = Counter()
        self._suffixes = image_suffixes()

    def images_below(self, folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
        """Yields images in a folder and its sub-folders, in the order of their names."""
        real = folder.resolve()
        if any(real == outer or real in outer.parents for outer in above):
            return  # a link to a folder above
        for path in visible(folder):
            if path.is_dir():
                yield from self.images_below(path, (*above, real))
            elif self.is_image(path):
                yield path

    def images_in(self, folder: Path) -> list[Path]:
        """Returns images in a folder itself."""
        files = (path for path in visible(folder) if not path.is_dir())
        return [path for path in files if self.is_image(path)]

    def is_image(self, path: Path) -> bool:
        """Returns `True` if a file is to be read; counts other files."""
        suffix = path.suffix.lower()
        if suffix in self._suffixes:
            # A broken link counts as an image, so that it is reported as damaged. Opening
            # a pipe would wait.
            found = path.is_file() or not path.exists()
        elif suffix in NO_IMAGES or not path.is_file():
            found = False
        else:
            found = is_image(path, without=(RAW_FORMAT,) if suffix else ())
        if not found:
            self.others[suffix or NO_SUFFIX] += 1
        return found

    def left_out(self) -> str:
        """Describes the counts: "3 .txt, 2 .heic (pip install pillow-heif reads them)"."""
        return ", ".join(
            f"{count} {suffix}" + _remedy(suffix)
            for suffix, count in sorted(self.others.items(), key=_most_first)
        )

    def log_others(self, folder: Path) -> None:
        """Logs the counts, if there are any."""
        if self.others:
            log.warning(
                "Left out %d files in %r that are no images, or of a format that is not "
                "read: %s",
                self.others.total(),
                str(folder),
                self.left_out(),
            )


def visible(folder: Path) -> Iterator[Path]:
    """Yields the paths in a folder in order, without those that systems leave."""
    for path in sorted(folder.iterdir()):
        if not is_clutter(path.name):
            yield path


def _remedy(suffix: str) -> str:
    return f" ({READERS[suffix]} reads them)" if suffix in READERS else ""


def _most_first(item):
    suffix, count = item
    return -count, suffix
