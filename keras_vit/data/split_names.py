"""Names of splits: spellings of "train", "validation" and "test" of folders and columns."""

import re
from collections.abc import Iterable

KNOWN: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trainval", "trn"),
    "validation": ("validation", "val", "valid", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
# Validation images for some, test images for others.
EVALUATION = ("eval", "evaluation")
# Parts of a data set whose name does not tell their purpose.
UNCERTAIN = (
    *("batch", "fold", "heldout", "hold", "holdout", "out", "part", "partition"),
    *("private", "public", "split", "subset", "unlabeled", "unlabelled", "unseen"),
)
FILLERS = (
    *("cropped", "data", "dataset", "dir", "folder", "image", "images", "img", "imgs"),
    *("pics", "pictures", "photos", "samples", "seg", "set", "sets"),
)
SPLIT_OF: dict[str, str] = {word: split for split, words in KNOWN.items() for word in words}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Returns the split of each name that tells it for certain: "Training", "test_set".

    Words that all names share are ignored: "flowers_train" and "flowers_test" are splits.
    `eval` is validation if another name is test, and test if another is validation;
    otherwise it is uncertain.
    """
    words = _own_words(names)
    kinds = {name: _kind(own) for name, own in words.items()}
    found = set(kinds.values())
    left = [split for split in ("validation", "test") if split not in found]
    of_evaluation = left[0] if len(left) == 1 else None
    kinds = {
        name: of_evaluation if kind in EVALUATION else kind for name, kind in kinds.items()
    }
    return {name: kind for name, kind in kinds.items() if kind}


def look_like_splits(names: Iterable[str]) -> bool:
    """Returns `True` if all look like splits, also uncertain ones: "fold_1", "eval"."""
    words = _own_words(names)
    return bool(words) and all(map(_may_be_a_split, words.values()))


def mentions_training(names: Iterable[str]) -> bool:
    """Returns `True` if a name holds a word for training, also among others: "trainA"."""
    return any(SPLIT_OF.get(word) == "train" for name in names for word in _words(name))


def mention_several_splits(names: Iterable[str]) -> bool:
    """Returns `True` if one name mentions training and another validation or test."""
    kinds = [{SPLIT_OF.get(w) for w in own} - {None} for own in _own_words(names).values()]
    return {"train"} in kinds and any(kind and "train" not in kind for kind in kinds)


def tells_of_training(name: str) -> bool:
    """Returns `True` for names of a column such as "train", "test", "train/val"."""
    words = set(_words(name))
    return _only(words, SPLIT_OF) and bool(words & {*KNOWN["train"], *KNOWN["test"]})


def _own_words(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the words of each name, without shared words that name no split."""
    words = {name: _words(name) for name in names}
    if len(words) < 2:
        return words
    common = set.intersection(*map(set, words.values()))
    common -= {*SPLIT_OF, *EVALUATION, *UNCERTAIN}
    return {name: [w for w in own if w not in common] for name, own in words.items()}


def _kind(words: list[str]) -> str | None:
    """Returns the split that words name, or "eval"."""
    known = (*SPLIT_OF, *EVALUATION)
    kinds = {SPLIT_OF.get(word, EVALUATION[0]) for word in words if word in known}
    return kinds.pop() if len(kinds) == 1 and _only(words, known) else None


def _may_be_a_split(words: list[str]) -> bool:
    known = (*SPLIT_OF, *EVALUATION, *UNCERTAIN)
    words = [word for word in words if len(word) > 1 or word.isdecimal()]  # "trainA"
    numbered = "set" in words and any(word.isdecimal() for word in words)
    return _only(words, known) and (numbered or any(word in known for word in words))


def _only(words: Iterable[str], known: Iterable[str]) -> bool:
    """Returns `True` if all words are known, numbers or fillers."""
    return all(w in known or w in FILLERS or w.isdecimal() for w in words)


def _words(name: str) -> list[str]:
    """Splits a name into words in lower case; "trainset" is two words, as "TrainSet" is."""
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
