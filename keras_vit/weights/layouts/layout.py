"""What a layout of checkpoints is: tables of names and array moves, and few facts."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple


class TensorRow(NamedTuple):
    """Source tensors → our variables, by a named array move."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    move: str


def row(sources: str | tuple, targets: str | tuple, move: str = "same") -> TensorRow:
    """A row of a table; `{i}` in a name is the number of an encoder block, `{stage}` and
    `{unit}` those of a ResNet's (`{unit:02}` in two digits).
    """
    sources = (sources,) if isinstance(sources, str) else tuple(sources)
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    return TensorRow(sources, targets, move)


def weight_and_bias(source: str, target: str, move: str = "same", bias: str = "same"):
    """The two rows of a dense layer, in the names of torch and of Keras."""
    return (
        row(f"{source}.weight", f"{target}/kernel", move),
        row(f"{source}.bias", f"{target}/bias", bias),
    )


def norm(source: str, target: str, scale: str = ".weight", offset: str = ".bias"):
    """The two rows of a layer norm."""
    return (
        row(f"{source}{scale}", f"{target}/gamma"),
        row(f"{source}{offset}", f"{target}/beta"),
    )


_NUMBER = r"\{(\w+)(?::\w+)?\}"
_HEADS = ("head/", "pre_logits/")


def _any_of(templates: Iterable[str]) -> re.Pattern:
    """Matches what templates with `{i}`, … become with any numbers."""
    patterns = [
        r"\d{1,5}".join(map(re.escape, re.split(r"\{[^}]*\}", template)))
        for template in dict.fromkeys(templates)
    ]
    return re.compile("|".join(patterns) or "(?!)")


def numbers_in(template: str, names: Iterable[str]) -> list[dict[str, int]]:
    """The numbers with which a template with `{i}`, … is one of the names, in order."""
    parts = re.split(_NUMBER, template)  # text, name of a number, text, …
    pattern = "".join(
        rf"(?P<{part}>\d{{1,5}})" if i % 2 else re.escape(part)
        for i, part in enumerate(parts)
    )
    found = [match for name in names if (match := re.fullmatch(pattern, name))]
    numbers = [{k: int(v) for k, v in match.groupdict().items()} for match in found]
    return sorted(
        # As a table writes them: with as many digits, and once each.
        (n for n, m in zip(numbers, found, strict=True) if template.format(**n) == m[0]),
        key=lambda n: [*n.values()],
    )


POSITIONS = ("position_embedding/prefix", "position_embedding/grid")


@dataclass(frozen=True)
class Layout:
    """A family's way to name and shape its tensors.

    Attributes:
        name: what `save_weights` and the tools call it.
        rows: the conversion table. A row counts where all of its sources are there.
        first: the number of the first stage and unit in the names; ours count from 0.
        model: `"vit"` or `"bit"`, which of the models is in the file.
        marks: patterns of names (after `aliases`); a file is in this layout if each of
            them matches a name.
        aliases: (pattern, replacement) of names that other versions use, in order.
        dropped: pattern of a name → the reason why nothing of the model needs it.
        defaults: arguments of the model that a file does not tell.
        num_prefix: function of the canonical names' shapes → how many position rows may
            belong to the prefix, the usual number first.
        hints: function of a `config.json` → arguments of `VisionTransformer` in it.
        implied: function of the `config.json` or None, the file's path and the width of
            its tokens → (who, such arguments) that an architecture's name stands for or
            its class takes where the config is silent, in order; None is an argument
            that cannot be told.
        difference: function of a `config.json`, of canonical names → names in the file
            and of canonical names → shapes → why the model may compute something else
            than its tensors tell, or None.
        unsettled: function of the arguments → argument → values that published models of
            these shapes have, where they differ; it must then be told.
        names_in_paths: bool, whether files and folders are named by timm's architectures.
        resnet: arguments of the ResNet's parts that a file with one does not tell.
        gate: function of the arguments known and of the file's shapes by name → the
            activation of an MLP with a gate, `"swiglu"` or `"geglu"`; None if untold.
        kernels_of_keras: bool, whether kernels have Keras' axes (inputs, …, outputs), and
            those of attention tell the heads, or torch's (outputs, inputs, …).
        without_positions: what `position` is where there is no position embedding.
        written_names: (pattern, replacement) that canonical names become in new files.
        written_prefix: function of the numbers of class tokens and registers → how many
            position rows a new file may have for the prefix.
        not_written: function of a model's config and its number of position rows for
            the prefix → sources of rows that a new file has not.
    """

    name: str
    rows: tuple[TensorRow, ...]
    marks: tuple[str, ...]
    first: int = 0
    model: str = "vit"
    aliases: tuple[tuple[str, str], ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    resnet: Mapping[str, object] = field(default_factory=dict)
    num_prefix: Callable[[Mapping], tuple[int, ...]] = lambda shapes: (0,)
    hints: Callable[[dict], dict] = lambda config: {}
    implied: Callable[[dict | None, str, int], Iterable[tuple[str, dict]]] = (
        lambda config, path, width: ()
    )
    difference: Callable[[dict, Mapping, Mapping], str | None] = (
        lambda config, names, shapes: None
    )
    unsettled: Callable[[Mapping], Mapping[str, tuple]] = lambda fields: {}
    names_in_paths: bool = False
    gate: Callable[[Mapping, Mapping], str | None] = lambda fields, shapes: "swiglu"
    kernels_of_keras: bool = False
    without_positions: str = "none"
    written_names: tuple[tuple[str, str], ...] = ()
    written_prefix: Callable[[int, int], tuple[int, ...]] = lambda tokens, registers: (0,)
    not_written: Callable[[dict, int], Iterable[str]] = lambda config, num_prefix: ()

    def ours(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """The numbers in our names, of those in the file's."""
        return {k: n - self.first * (k != "i") for k, n in numbers.items()}

    def theirs(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """The numbers in the file's names, of those in ours."""
        return {k: n + self.first * (k != "i") for k, n in numbers.items()}

    def canonical(self, name: str) -> str:
        """The name that the table uses for a tensor."""
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name

    def written(self, name: str) -> str:
        """The name that a new file has for a tensor of the table."""
        for pattern, replacement in self.written_names:
            name = re.sub(pattern, replacement, name)
        return name

    def recognises(self, names: Iterable[str]) -> bool:
        """Whether a file with these names is in this layout."""
        listing = "\n".join(map(self.canonical, names))
        return all(re.search(f"^(?:{mark})$", listing, re.MULTILINE) for mark in self.marks)

    @cached_property
    def _sources(self) -> re.Pattern:
        return _any_of(source for row in self.rows for source in row.sources)

    @cached_property
    def _sources_of_heads(self) -> re.Pattern:
        heads = [row for row in self.rows if row.targets[0].startswith(_HEADS)]
        return _any_of(source for row in heads for source in row.sources)

    def knows(self, name: str) -> bool:
        """True if a canonical name is in the table."""
        return bool(self._sources.fullmatch(name))

    def is_of_head(self, name: str) -> bool:
        """True if a canonical name becomes a part of the head."""
        return bool(self._sources_of_heads.fullmatch(name))

    def reason_to_drop(self, name: str) -> str | None:
        """Why a canonical name is not needed, or None where it is."""
        for pattern, reason in self.dropped.items():
            if re.fullmatch(pattern, name):
                return reason
        return None
