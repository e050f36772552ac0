"""Spellings of "train", "validation" and "test" in the names of folders and columns."""

import re
from collections.abc import Iterable

KNOWN = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "val", "valid", "dev", "development"),
    "test": ("test", "testing"),
}
# For some the validation images and for others the test images.
EVALUATION = ("eval", "evaluation")
# Parts of a data set of which the name does not say what they are for.
UNCERTAIN = (
    *("batch", "fold", "heldout", "hold", "holdout", "out", "part", "partition"),
    *("private", "public", "split", "subset", "unlabeled", "unlabelled", "unseen"),
)
FILLERS = (
    *("cropped", "data", "dataset", "dir", "folder", "image", "images", "img", "imgs"),
    *("pics", "pictures", "photos", "samples", "seg", "set", "sets"),
)
SPLIT_OF = {word: split for split, words in KNOWN.items() for word in words}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that tells it for certain, such as "Training", "test_set".

    `eval` is that of validation and test which no other name is, and uncertain where
    none is.
    """
    kinds = {name: _kind(name) for name in names}
    found = set(kinds.values())
    left = [split for split in ("validation", "test") if split not in found]
    of_evaluation = left[0] if len(left) == 1 else None
    kinds = {
        name: of_evaluation if kind in EVALUATION else kind for name, kind in kinds.items()
    }
    return {name: kind for name, kind in kinds.items() if kind}


def looks_like_a_split(name: str) -> bool:
    """True also for names that leave open which split they are: "fold_1", "eval"."""
    words = _words(name)
    known = (*SPLIT_OF, *EVALUATION, *UNCERTAIN)
    numbered = "set" in words and any(word.isdecimal() for word in words)
    return _only(words, known) and (numbered or any(word in known for word in words))


def _kind(name: str) -> str | None:
    """The split that a name says, or "eval"."""
    words = _words(name)
    kinds = {SPLIT_OF.get(word, word) for word in words if word in (*SPLIT_OF, *EVALUATION)}
    kinds = {EVALUATION[0] if kind in EVALUATION else kind for kind in kinds}
    if len(kinds) != 1 or not _only(words, (*SPLIT_OF, *EVALUATION)):
        return None
    return kinds.pop()


def _only(words: list[str], known: Iterable[str]) -> bool:
    """Whether there is nothing but these words, numbers and words without a meaning."""
    return all(w in known or w in FILLERS or w.isdecimal() for w in words)


def _words(name: str) -> list[str]:
    """Lower case; "trainset" is two words as "TrainSet" and "train_set" are."""
    words = [word.lower() for word in WORD.findall(name)]
    return [part for word in words for part in _parts(word)]


def _parts(word: str) -> list[str]:
    known = (*SPLIT_OF, *EVALUATION)
    for filler in FILLERS:
        if word.endswith(filler) and word.removesuffix(filler) in known:
            return [word.removesuffix(filler), filler]
        if word.startswith(filler) and word.removeprefix(filler) in known:
            return [filler, word.removeprefix(filler)]
    return [word]
