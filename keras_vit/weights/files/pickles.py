"""Names in torch's pickles: parts of tensors, what weights do not need, the refused."""

import functools
import re
import sys
from collections import OrderedDict

# What a state dict is made of (Python 2 and 3). Others that torch allows take memory for
# the asking: `bytearray`, empty tensors, storages that are in no file.
_TENSORS = (
    r"collections (OrderedDict|Counter)|_codecs encode|"
    r"torch\._utils _rebuild_(tensor(_v2)?|parameter(_with_state)?)|"
    r"torch\.nn\.parameter Parameter|"
    r"torch (\w+Storage|Size|device|u?int\d+|b?float\d+|complex\d+|bool)|"
    r"(builtins|__builtin__) (set|complex)"
)
# What training scripts leave beside: arguments, paths, dates, schedules.
_BESIDE = (
    r"argparse\.Namespace|types\.SimpleNamespace|collections\.(defaultdict|deque)|"
    r"pathlib(\._local)?\.\w+|datetime\.\w+|decimal\.Decimal|fractions\.Fraction|"
    r"uuid\.\w+|functools\.partial|builtins\.(slice|range|frozenset|object|list|dict|tuple|int|float|str|bool)|"
    r"copyreg\._reconstructor|torch\.torch_version\.TorchVersion|"
    r"torch\.(optim|amp|cuda\.amp|utils\.data|nn\.modules\.loss)\.[\w.]+"
)
# Torch fills plain dictionaries and lists alone; what is named so is filled as a rule.
_DICTIONARIES = r".*(defaultdict|\wDict|\.Dict|CfgNode|Munch|Box|Config|Params|\wMap)"
_LISTS = r"collections\.deque|.*\wList"


def is_of_tensors(instruction: str) -> bool:
    """True if torch may make what a pickle names as `"module name"`."""
    return bool(re.fullmatch(_TENSORS, instruction))


def full_name(instruction: str) -> str:
    """`"module name"` of a pickle as torch looks it up, under Python 3's names."""
    import _compat_pickle

    module, _, name = instruction.partition(" ")
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


@functools.cache
def as_nothing(name: str) -> type | None:
    """A class for what a pickle names but weights do not need, or None if it is refused.

    Neither the class of that name nor any code is looked up: what the pickle builds holds
    nothing. Of Python's own modules and torch's only what is known is taken so.
    """
    module = name.partition(".")[0]
    foreign = module != "torch" and module not in sys.stdlib_module_names
    if not (foreign or re.fullmatch(_BESIDE, name)):
        return None
    if re.fullmatch(_LISTS, name):
        return _List
    return _Dictionary if re.fullmatch(_DICTIONARIES, name) else _Nothing


class _Nothing:
    """Takes whatever a pickle gives to an object, and keeps none of it."""

    def __new__(cls, *arguments, **options):
        return super().__new__(cls)

    def __init__(self, *arguments, **options):
        pass

    def __setstate__(self, state):
        pass


class _Dictionary:
    """Becomes a plain dictionary, as torch fills no other."""

    def __new__(cls, *arguments, **options):
        return OrderedDict()


class _List:
    """Becomes a plain list, as torch fills no other."""

    def __new__(cls, *arguments, **options):
        return []
