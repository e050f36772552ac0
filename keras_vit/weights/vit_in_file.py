"""The place of a ViT in a file: keys, prefixes and wrappers around its names."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from keras_vit.log import log
from keras_vit.weights.architecture import EFFICIENTNET_STEM, KERNEL
from keras_vit.weights.config_files import read_config
from keras_vit.weights.files.tensor_file import TensorFile
from keras_vit.weights.layouts.aimv2 import AIMV2
from keras_vit.weights.layouts.dinov3 import HF_DINOV3, META
from keras_vit.weights.layouts.google import BIT, GOOGLE
from keras_vit.weights.layouts.huggingface import LAYOUTS
from keras_vit.weights.layouts.keras_hub import KERAS_HUB
from keras_vit.weights.layouts.layout import Layout
from keras_vit.weights.layouts.moco import PROJECTION_REASON, is_projection
from keras_vit.weights.layouts.timm import TIMM
from keras_vit.weights.layouts.timm_efficientnet import TIMM_EFFICIENTNET
from keras_vit.weights.layouts.timm_naflex import TIMM_NAFLEX
from keras_vit.weights.layouts.timm_resnet import TIMM_BIT
from keras_vit.weights.look_alikes import unknown_architecture

ALL_LAYOUTS = (
    GOOGLE,
    BIT,
    META,
    TIMM_NAFLEX,
    TIMM,
    TIMM_BIT,
    TIMM_EFFICIENTNET,
    HF_DINOV3,
    AIMV2,
    *LAYOUTS,
    KERAS_HUB,
)
# torch's names have dots, and training scripts put prefixes before them.
_DOTTED = tuple(layout for layout in ALL_LAYOUTS if not layout.keras_kernels)

# Prefixes of the weights in the files of Google's training code.
ROOTS = ("", "params/", "opt/target/", "target/")
IMAGE_TOWER = "img"

# Modules with which torch wraps others, anywhere in a name.
_WRAPPERS = (
    r"(?:^|(?<=\.))(?:_orig_mod|_forward_module|_fsdp_wrapped_module|_fpw_module|"
    r"_checkpoint_wrapped_module)\."
)
_SHOWN = 5  # names in a warning
_MAX_PREFIX = 12  # parts of a prefix
_KERNELS = (KERNEL, "root/conv/kernel", EFFICIENTNET_STEM)  # the first of a model
_KINDS = {"vit": "ViT", "bit": "BiT", "efficientnet": "EfficientNet"}

_AVERAGED = "ema|averaged?|avg|swa|polyak|shadow"  # names of averaged weights
# Of two networks trained together, (the one that is evaluated, the other).
_PAIRS = (
    ("teacher", "student"),  # DINO, iBOT
    ("base_encoder", "momentum_encoder"),  # MoCo v3
    ("encoder_q", "encoder_k"),  # MoCo
)
_NOT_OF_MODEL = r"(?:.*\.)?(?:\w*optim\w*|opt|\w*sched\w*|\w*state)\."


class ViTInFile(NamedTuple):
    """The tensors of one ViT in a file.

    Attributes:
        layout: layout of the names.
        names: name in the layout → name in the file.
        dropped: name in the file of a tensor outside the ViT → the reason to drop it.
        key: key or prefix of the ViT's names, `""` for none.
        others: keys of the other ViTs in the file.
        heads: names in the file of matrices outside the ViT that may read its features.
    """

    layout: Layout
    names: dict[str, str]
    dropped: dict[str, str]
    key: str = ""
    others: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


class _Place(NamedTuple):
    """A prefix, and the layout of the names after it."""

    prefix: str
    layout: Layout

    @property
    def key(self):
        return self.prefix.rstrip(".")

    def canonical_name(self, name):
        return self.layout.canonical_name(name.removeprefix(self.prefix))


def find_vit(file: TensorFile, subtree: str | None, key: str | None) -> ViTInFile:
    """The tensors of the ViT in a file; warns of others beside it.

    Args:
        file: the open file.
        subtree: the sub-tree of Google's layout to take.
        key: the key or prefix of the names to take.

    Raises:
        ValueError: if the file is in no layout, holds several ViTs and nothing tells which
            one to take, holds none under the key, or a part of the ViT lies elsewhere.
    """
    try:
        vit = _find(file.shapes, subtree, key)
    except ValueError as error:
        raise ValueError(f"{file.path!r} cannot be loaded: {error}.") from error
    if vit is None:
        reason = "its names are of no layout"
        if named := unknown_architecture(read_config(file.path) or {}):
            reason = f"{reason}, and {named}"
        if subtree:
            reason = f"it has no ViT in the sub-tree {subtree!r}"
        raise foreign_error(file, reason)
    file.check_claims(vit.names.values())
    if vit.others:
        log.warning(
            "%s holds several ViTs. Loading the one under the key %r; `key=…` takes "
            "another: %s.",
            file.path,
            vit.key,
            ", ".join(map(repr, vit.others)),
        )
    if vit.heads and key is None:
        others = len(vit.heads) - _SHOWN
        log.warning(
            "%s holds a ViT under the key %r, and beside it %s, which may be its head and "
            "is left out.",
            file.path,
            vit.key,
            ", ".join(vit.heads[:_SHOWN]) + (f" and {others} more" * (others > 0)),
        )
    return vit


def foreign_error(
    file: TensorFile, reason: str, layout: Layout | None = None
) -> ValueError:
    """The error for a file that is no checkpoint of a layout."""
    names = sorted(file.shapes)
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    held = f"{len(names)} tensors: {shown}" if names else "no tensor"
    expected = f"in the layout {layout.name!r}" if layout else "in a layout known here"
    kind = _KINDS[layout.model if layout else "vit"]
    return ValueError(
        f"{file.path!r} is not a {kind} checkpoint {expected}: {reason}. It holds {held}. "
        f"Layouts: {', '.join({known.name: 0 for known in ALL_LAYOUTS})}."
    )


def _find(shapes, subtree, key) -> ViTInFile | None:
    """The ViT in a file of these shapes; None if its names are of no layout."""
    names = _cleaned(shapes)
    if key is None:
        return _slashed(names, subtree) or _dotted(names, shapes)
    key = re.sub(_WRAPPERS, "", f"{key}.").rstrip("./")
    inside = _under(names, key)
    start = len(key) + 1 if key else 0
    vit = _slashed({name[start:]: raw for name, raw in inside.items()}, subtree)
    vit = vit or _dotted(inside, shapes)
    if vit is None:
        places = [place.key for place in _complete(_places(names), names)]
        raise ValueError(
            f"there is no ViT among the {len(inside)} tensors under the key {key!r}. Keys "
            f"of ViTs: {', '.join(map(repr, places)) or 'none'}"
        )
    asked = {*inside.values()}
    outside = {n: f"it is outside of key={key!r}" for n in shapes if n not in asked}
    return vit._replace(key=key, dropped={**outside, **vit.dropped}, others=())


def _cleaned(shapes) -> dict[str, str]:
    """Name without wrapping modules → name in the file."""
    names = {re.sub(_WRAPPERS, "", name): name for name in shapes}
    return names if len(names) == len(shapes) else {name: name for name in shapes}


def _under(names, key) -> dict[str, str]:
    """The names that begin with a key; for `""` those of no ViT with a prefix."""
    if key:
        return {n: raw for n, raw in names.items() if n.startswith((f"{key}.", f"{key}/"))}
    inner = tuple(p.prefix for p in _complete(_places(names), names) if p.prefix)
    return {n: raw for n, raw in names.items() if not n.startswith(inner)}


# Google's names and KerasHub's, with slashes.


def _slashed(names, subtree) -> ViTInFile | None:
    trees = [f"{subtree}/"] if subtree else ["", f"{IMAGE_TOWER}/"]
    for layout in (GOOGLE, BIT, KERAS_HUB):
        for root in ROOTS if layout is GOOGLE else ("",):
            for tree in trees if layout is GOOGLE else ("",):
                prefix = root + tree
                inside = [name for name in names if name.startswith(prefix)]
                if layout.recognises(name.removeprefix(prefix) for name in inside):
                    reasons = {name: _outside(name, root, tree) for name in names}
                    return ViTInFile(
                        layout,
                        {n.removeprefix(prefix): names[n] for n in names if not reasons[n]},
                        {names[n]: reason for n, reason in reasons.items() if reason},
                    )
    return None


def _outside(name, root, tree) -> str | None:
    """The reason to drop a tensor outside the model, or None for one inside."""
    if root and not name.startswith(root) and name.split("/")[0] in ("opt", "state"):
        return "it belongs to the optimizer"
    if tree and name.startswith(root) and not name.startswith(root + tree):
        return f"it is outside of the sub-tree {tree[:-1]!r}"
    return None


# torch's names, with dots.


def _dotted(names, shapes) -> ViTInFile | None:
    places = _places(names)
    if not places:
        return None
    places = _complete(places, names) or places
    place = _chosen(places)
    inside, beside, dropped = {}, [], {}
    for name, raw in names.items():
        owner = _owner(name, places)
        if owner is place and is_projection(place.key, name, names):
            dropped[raw] = PROJECTION_REASON
        elif owner is place:
            inside[name.removeprefix(place.prefix)] = raw
        elif owner:
            dropped[raw] = f"it belongs to another ViT, under key={owner.key!r}"
        else:
            beside.append(name)
            dropped[raw] = f"it is outside of {place.key!r}, the prefix of the ViT"
    _check_parts(place, inside, beside)
    others = tuple(other.key for other in places if other is not place)
    heads = _heads(place, inside, {n: names[n] for n in beside}, shapes)
    return ViTInFile(place.layout, inside, dropped, place.key, others, heads)


def _owner(name, places) -> _Place | None:
    """The place with the longest prefix of a name."""
    return max(
        (place for place in places if name.startswith(place.prefix)),
        key=lambda place: len(place.prefix),
        default=None,
    )


def _places(names: Iterable[str]) -> list[_Place]:
    """The places of ViTs, shortest prefix first, each ViT once."""
    inside = defaultdict(list)
    for name in names:
        parts = name.split(".")
        for end in range(min(len(parts), _MAX_PREFIX + 1)):
            inside["".join(f"{part}." for part in parts[:end])].append(name)
    places = []
    for prefix in sorted(inside, key=len):
        if any(_is_part(place, inside[prefix]) for place in places):
            continue
        relative = [name.removeprefix(prefix) for name in inside[prefix]]
        layout = next((each for each in _DOTTED if each.recognises(relative)), None)
        if layout:
            places.append(_Place(prefix, layout))
    return places


def _is_part(place, names):
    """True if names belong to the ViT at a place, and not to another inside it."""
    if not names[0].startswith(place.prefix):
        return False
    layout = place.layout
    canonical = map(place.canonical_name, names)
    return any(layout.has_row(name) or layout.reason_to_drop(name) for name in canonical)


def _complete(places, names) -> list[_Place]:
    """The places of ViTs with a patch embedding and of BiTs with a root."""
    return [place for place in places if _first_kernel(place, names)]


def _first_kernel(place, names) -> str | None:
    """The name of the kernel of the first layer, or None without one."""
    rows = [row for row in place.layout.rows if row.targets[0] in _KERNELS]
    sources = {row.sources[0] for row in rows}
    inside = (name for name in names if name.startswith(place.prefix))
    return next((name for name in inside if place.canonical_name(name) in sources), None)


def _chosen(places) -> _Place:
    """The only place, or the one whose names show that it is meant; else a ValueError."""
    left = [place for place in places if not _is_named(place, places, _AVERAGED)] or places
    for wanted, other in _PAIRS:
        if any(_is_named(place, places, wanted) for place in left):
            left = [place for place in left if not _is_named(place, places, other)]
    if len(left) == 1:
        return left[0]
    keys = ", ".join(repr(place.key) for place in places)
    raise ValueError(
        f"there are {len(places)} ViTs in it, and nothing tells which one to take. Give "
        f"`key=…`, one of {keys} (on the command line `--set key=…`)"
    )


def _is_named(place, places, words):
    """True if one of the words is in the parts of a key that not all keys have."""
    keys = [other.key.split(".") for other in places]
    parts = [part for part in place.key.split(".") if any(part not in k for k in keys)]
    snakes = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part).lower() for part in parts]
    return any(re.search(rf"(?:^|_)(?:{words})(?:_|\d|$)", part) for part in snakes)


def _check_parts(place, inside, beside):
    """Refuses a ViT if a part that it lacks is outside of its prefix."""
    layout = place.layout
    has = {layout.canonical_name(name) for name in inside}
    parts = place.key.split(".")
    parents = ["".join(f"{part}." for part in parts[:end]) for end in range(len(parts))]
    for name in beside:
        for parent in (parent for parent in parents if name.startswith(parent)):
            canonical = layout.canonical_name(name.removeprefix(parent))
            is_part = layout.has_row(canonical) and not layout.is_head(canonical)
            if is_part and canonical not in has:
                raise ValueError(
                    f"{name!r} is named as a part of the ViT, which has the prefix "
                    f"{place.key!r} and lacks that part. `key={place.key!r}` loads it "
                    "without that part"
                )


def _heads(place, inside, beside, shapes) -> tuple[str, ...]:
    """Matrices outside the ViT whose inputs may be its features, or several of them."""
    kernel = _first_kernel(_Place("", place.layout), inside)
    if not kernel:
        return ()
    width = shapes[inside[kernel]][0]
    heads = [
        raw
        for name, raw in beside.items()
        if not re.match(_NOT_OF_MODEL, name)
        and len(shapes[raw]) == 2
        and width
        and shapes[raw][1]
        and shapes[raw][1] % width == 0
    ]
    return tuple(sorted(heads, key=lambda name: name.count(".")))
