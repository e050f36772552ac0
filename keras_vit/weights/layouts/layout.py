"""A layout of checkpoints: a table of names and array moves, and facts on the family."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np


class TensorRow(NamedTuple):
    """Source tensors → our variables, by a named array move: a row of a table.

    Attributes:
        sources: names of the file's tensors.
        targets: paths of our variables.
        move: name of the array move, see `MOVES`.
        unless: name of a tensor; the row does not apply to a file that has it.
        axis: axis of the blocks, where one tensor of the file has those of all blocks.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    move: str
    unless: str | None = None
    axis: int | None = None


def row(
    sources: str | tuple[str, ...],
    targets: str | tuple[str, ...],
    move: str = "same",
    **conditions: Any,
) -> TensorRow:
    """A row of a conversion table.

    In names `{i}` is the number of an encoder block, `{stage}` and `{unit}` are those of a
    ResNet (`{unit:02}` with two digits).
    """
    sources = (sources,) if isinstance(sources, str) else tuple(sources)
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    return TensorRow(sources, targets, move, **conditions)


def weight_and_bias(
    source: str, target: str, move: str = "same", bias: str = "same"
) -> tuple[TensorRow, TensorRow]:
    """The two rows of a dense layer, in the names of torch and of Keras."""
    return (
        row(f"{source}.weight", f"{target}/kernel", move),
        row(f"{source}.bias", f"{target}/bias", bias),
    )


def gates(gate: str, values: str, target: str) -> tuple[TensorRow, TensorRow]:
    """The rows of a gate and of the values that it multiplies, which are one layer here."""
    kinds = (("weight", "kernel", "weights"), ("bias", "bias", "biases"))
    return tuple(
        row(
            (f"{gate}.{part}", f"{values}.{part}"),
            f"{target}/{ours}",
            f"fuse {kind} of gate and values",
        )
        for part, ours, kind in kinds
    )


_WAY_OUT = "Save with layout='timm'"


def demand(
    config: Mapping[str, Any], files: str, way_out: str = _WAY_OUT, **holds: bool
) -> None:
    """Refuses a model with an argument that files of a kind cannot have.

    Args:
        config: config of the model.
        files: name of the files, for the error.
        way_out: what to do instead, for the error.
        **holds: argument → whether the files can have its value.

    Raises:
        ValueError: naming the first that they cannot have.
    """
    for name, is_so in holds.items():
        if not is_so:
            raise ValueError(
                f"{files} cannot have {name}={config[name]!r}. {way_out}, or build the "
                "model otherwise (`keras_vit.from_pretrained(model, …)`)."
            )


def norm(
    source: str, target: str, scale: str = ".weight", offset: str = ".bias"
) -> tuple[TensorRow, TensorRow]:
    """The two rows of a layer norm."""
    return (
        row(f"{source}{scale}", f"{target}/gamma"),
        row(f"{source}{offset}", f"{target}/beta"),
    )


_NUMBER = r"\{(\w+)(?::\w+)?\}"
_HEADS = ("head/", "distillation_head/", "pre_logits/")


def _any_of(templates: Iterable[str]) -> re.Pattern:
    """Pattern of the names that templates with `{i}`, … give for any numbers."""
    patterns = [
        r"\d{1,5}".join(map(re.escape, re.split(r"\{[^}]*\}", template)))
        for template in dict.fromkeys(templates)
    ]
    return re.compile("|".join(patterns) or "(?!)")


def numbers_in(template: str, names: Iterable[str]) -> list[dict[str, int]]:
    """The numbers, in order, for which a template with `{i}`, … gives one of the names."""
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


# Arguments that no tensor tells, in most families of torch.
TORCH_DEFAULTS: dict[str, object] = {
    "gelu_approximate": False,
    "layer_norm_epsilon": 1e-6,
    "position_interpolation": "bicubic",
}
POSITIONS = ("position_embedding/prefix", "position_embedding/grid")
OFFSETS = tuple(
    f"block_{{i}}/attention/relative_position/{name}" for name in ("prefix", "grid")
)


@dataclass(frozen=True)
class Layout:
    """The names and shapes of the tensors in a family's checkpoints.

    Functions of `config` take the content of a `config.json`, or `{}` without one.

    Attributes:
        name: name of the layout for `save_weights` and in reports.
        rows: the conversion table. A row applies if all of its sources are in the file.
        marks: patterns of canonical names; a file is in this layout if each of them
            matches a name.
        first: number of the first stage and unit in the names; ours count from 0.
        model: `"vit"`, `"bit"` or `"efficientnet"`, the model in the file.
        aliases: (pattern, replacement), in order: names of other versions → canonical ones.
        dropped: pattern of a canonical name → the reason why the model does not need it.
        defaults: arguments of the model where no source tells them.
        resnet_defaults: arguments of a ResNet's parts, or of an EfficientNet, where no
            source tells them.
        num_prefix: function of the shapes by canonical name: the numbers of position rows
            that prefix tokens may have, the usual one first.
        config_arguments: config → arguments of the model in it; None for those it lacks.
        architecture_arguments: (config or None, path of the file, width of its tokens) →
            [(source, arguments)] of the architecture that a name stands for, or of the
            class whose defaults apply where the config is silent. A value may be
            `Undecided`.
        tensor_arguments: (canonical name → function that reads its tensor) → arguments that
            the values of tensors tell.
        tensor_heads: (canonical name → shape, canonical name → function that reads its
            tensor) → number of heads of a published model whose tensors these may be, or
            None; the file's metadata and `config.json` come before it.
        reason_to_refuse: (config, canonical name → name in the file, canonical name →
            shape) → the reason why the model may compute something else than its tensors
            look like, or None.
        undecided: arguments that shapes tell → argument → its values in published models
            of these shapes, where these differ.
        names_in_paths: whether files and folders are named by timm's architectures.
        gate_activation: (arguments that shapes tell, name → shape of the file) → activation
            of an MLP with a gate, `"swiglu"` or `"geglu"`; None if it is unknown.
        keras_kernels: whether kernels have Keras' axes (inputs, …, outputs), and those of
            attention tell the number of heads; else torch's (outputs, inputs, …).
        without_positions: value of `position` where there is no position embedding.
        written_names: (pattern, replacement): canonical names → names in new files.
        written_prefix: (number of class and distillation tokens, number of registers) →
            numbers of position rows of the prefix that a new file may have.
        not_written: (config of a model, number of its position rows of the prefix) →
            sources of the rows that a new file does not have.
    """

    name: str
    rows: tuple[TensorRow, ...]
    marks: tuple[str, ...]
    first: int = 0
    model: str = "vit"
    aliases: tuple[tuple[str, str], ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    resnet_defaults: Mapping[str, object] = field(default_factory=dict)
    num_prefix: Callable[[Mapping], tuple[int, ...]] = lambda shapes: (0,)
    config_arguments: Callable[[dict], dict] = lambda config: {}
    architecture_arguments: Callable[
        [dict | None, str, int], Iterable[tuple[str, dict]]
    ] = lambda config, path, width: ()
    tensor_arguments: Callable[[Mapping[str, Callable[[], np.ndarray]]], dict] = (
        lambda tensors: {}
    )
    tensor_heads: Callable[[Mapping, Mapping], int | None] = lambda shapes, tensors: None
    reason_to_refuse: Callable[[dict, Mapping, Mapping], str | None] = (
        lambda config, names, shapes: None
    )
    undecided: Callable[[Mapping], Mapping[str, tuple]] = lambda fields: {}
    names_in_paths: bool = False
    gate_activation: Callable[[Mapping, Mapping], str | None] = lambda fields, shapes: (
        "swiglu"
    )
    keras_kernels: bool = False
    without_positions: str = "none"
    written_names: tuple[tuple[str, str], ...] = ()
    written_prefix: Callable[[int, int], tuple[int, ...]] = lambda tokens, registers: (0,)
    not_written: Callable[[dict, int], Iterable[str]] = lambda config, num_prefix: ()

    def our_numbers(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """Numbers in the file's names → numbers in ours."""
        return {k: n - self.first * (k != "i") for k, n in numbers.items()}

    def file_numbers(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """Numbers in our names → numbers in the file's."""
        return {k: n + self.first * (k != "i") for k, n in numbers.items()}

    def canonical_name(self, name: str) -> str:
        """The name of a tensor in the table."""
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name

    def written_name(self, name: str) -> str:
        """The name in a new file of a tensor of the table."""
        for pattern, replacement in self.written_names:
            name = re.sub(pattern, replacement, name)
        return name

    def recognises(self, names: Iterable[str]) -> bool:
        """True if a file with these names is in this layout."""
        listing = "\n".join(map(self.canonical_name, names))
        return all(re.search(f"^(?:{mark})$", listing, re.MULTILINE) for mark in self.marks)

    @cached_property
    def _sources(self) -> re.Pattern:
        return _any_of(source for row in self.rows for source in row.sources)

    @cached_property
    def _sources_of_heads(self) -> re.Pattern:
        heads = [row for row in self.rows if row.targets[0].startswith(_HEADS)]
        return _any_of(source for row in heads for source in row.sources)

    def has_row(self, name: str) -> bool:
        """True if a canonical name is in the table."""
        return bool(self._sources.fullmatch(name))

    def is_head(self, name: str) -> bool:
        """True if the tensor of a canonical name belongs to the head."""
        return bool(self._sources_of_heads.fullmatch(name))

    def reason_to_drop(self, name: str) -> str | None:
        """The reason why the model does not need a tensor, or None if it does."""
        for pattern, reason in self.dropped.items():
            if re.fullmatch(pattern, name):
                return reason
        return None
