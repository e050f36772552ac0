"""Lists of class names: published ones of ImageNet-21k, and files of a user's own.

The published lists are timm's (huggingface/pytorch-image-models, Apache-2.0): WordNet ids
in the order of a head's outputs, and the nouns of each id. They are downloaded once, and
compared with the digests of the files in the package timm 1.0.31.
"""

import functools
import json
import os
from typing import NamedTuple

from keras_vit.download.cache import fetch
from keras_vit.download.digests import Digest, damage_error, mismatch

_TIMM = "https://raw.githubusercontent.com/huggingface/pytorch-image-models"
_PACKAGE = f"{_TIMM}/a10ed118c94d767ca9c2e1eaaa177fe993c1216d/timm/data/_info"


class ClassList(NamedTuple):
    """A published file.

    Attributes:
        address: its address, of one commit.
        sha256: its digest.
    """

    address: str
    sha256: str


# Number of outputs of a head → WordNet ids of its classes: Google's ImageNet-21k, timm's
# `in22k` (the archive of fall 2011) and `in12k`, and MIIL's `in21k` without rare classes.
LISTS: dict[int, ClassList] = {
    21843: ClassList(
        f"{_PACKAGE}/imagenet21k_goog_synsets.txt",
        "66362bdedf36d933382edca5493fc562dcc17128ce36403c9e730a75f48cb2f2",
    ),
    21841: ClassList(
        f"{_TIMM}/6c745cca2e88f6d3490b84335ad7873799284451/results/imagenet22k_synsets.txt",
        "0ae24538751973797b29d8dec412b2bdc61bc4ec3ecd081eba0735804236bbd2",
    ),
    11821: ClassList(
        f"{_TIMM}/70442fd5a81c6ae1078195ab1b5344f35a7ae4fa/results/imagenet12k_synsets.txt",
        "f6483e79f18a9b670d43d915ddba40bbcaf82cfc4e92a07bd44057b9d44935f3",
    ),
    11221: ClassList(
        f"{_PACKAGE}/imagenet21k_miil_synsets.txt",
        "cd76d977daaa2f13a4a91fca0f53713f2f29675308d4ce0f0ee0e5b07a3164c6",
    ),
}
NOUNS = ClassList(
    f"{_PACKAGE}/imagenet_synset_to_lemma.txt",
    "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f",
)


def published_classes(count: int) -> tuple[tuple[str, str], ...]:
    """(WordNet id, names) of each class of a head of ImageNet-21k.

    Args:
        count: number of outputs, a key of `LISTS`.

    Raises:
        ConnectionError: if a list is not in the cache and cannot be downloaded.
        ValueError: if a list has another digest.
    """
    nouns = dict(line.split("\t") for line in _lines(NOUNS))
    return tuple((wordnet_id, nouns[wordnet_id]) for wordnet_id in _lines(LISTS[count]))


@functools.cache
def _lines(source: ClassList) -> list[str]:
    path = fetch(source.address)
    expected = Digest("this package", "sha256", source.sha256)
    if wrong := mismatch(path, [expected]):
        raise damage_error(wrong, path, f"{path}.sha256")
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def classes_in_file(
    path: str | os.PathLike[str], count: int
) -> tuple[tuple[str, str], ...]:
    """(id, name) of each class in a file.

    Args:
        path: path of a `.json` file like Keras' `imagenet_class_index.json`, `{"0": [id,
            name], …}`; or of a text file with a line for each class, in order: an id, a
            tab and a name, or a name alone, whose number then is its id.
        count: number of classes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or another number of classes.
    """
    path = os.fspath(path)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if path.endswith(".json"):
        names = json.loads(text)
        if not isinstance(names, dict) or set(names) != {str(i) for i in range(count)}:
            raise ValueError(
                f'{path!r} is not Keras\' imagenet_class_index.json, which maps "0" … '
                f'"{count - 1}" to [WordNet id, name]'
            )
        return tuple((*names[str(i)],) for i in range(count))
    lines = text.splitlines()
    if len(lines) != count:
        raise ValueError(
            "A file of class names has a line for each output of the head. Received: "
            f"{path!r} with {len(lines)} lines for {count} outputs"
        )
    found = (line.rpartition("\t") for line in lines)
    return tuple((before or str(i), name) for i, (before, _, name) in enumerate(found))
