"""Names of classes in torch's pickles: parts of tensors, ignored classes, refused ones."""

import functools
import re
import sys
from collections import OrderedDict

# Parts of a state dict (Python 2 and 3). Others that torch allows can take any memory:
# `bytearray`, empty tensors, storages that are in no file.
_TENSORS = (
    r"collections (OrderedDict|Counter)|_codecs encode|"
    r"torch\._utils _rebuild_(tensor(_v2)?|parameter(_with_state)?)|"
    r"torch\.nn\.parameter Parameter|"
    r"torch (\w+Storage|Size|device|u?int\d+|b?float\d+|complex\d+|bool)|"
    r"(builtins|__builtin__) (set|complex)"
)
# Objects that training scripts save, too: arguments, paths, dates, schedules.
_BESIDE = (
    r"argparse\.Namespace|types\.SimpleNamespace|collections\.(defaultdict|deque)|"
    r"pathlib(\._local)?\.\w+|datetime\.\w+|decimal\.Decimal|fractions\.Fraction|"
    r"uuid\.\w+|functools\.partial|builtins\.(slice|range|frozenset|object|list|dict|tuple|int|float|str|bool)|"
    r"copyreg\._reconstructor|torch\.torch_version\.TorchVersion|"
    r"torch\.(optim|amp|cuda\.amp|utils\.data|nn\.modules\.loss)\.[\w.]+"
)
# torch only fills plain dictionaries and lists; classes of such names are usually filled.
_DICTIONARIES = r".*(defaultdict|\wDict|\.Dict|CfgNode|Munch|Box|Config|Params|\wMap)"
_LISTS = r"collections\.deque|.*\wList"


def is_part_of_tensor(instruction: str) -> bool:
    """True if torch may create the class that a pickle names as `"module name"`."""
    return bool(re.fullmatch(_TENSORS, instruction))


def full_name(instruction: str) -> str:
    """`"module.name"` in Python 3 of a class that a pickle names as `"module name"`."""
    import _compat_pickle

    module, _, name = instruction.partition(" ")
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


@functools.cache
def empty_class(name: str) -> type | None:
    """A class without content to stand for one that weights do not need; None to refuse.

    The class of that name is not imported. In Python's own modules and torch's all classes
    are refused but some known ones.
    """
    module = name.partition(".")[0]
    foreign = module != "torch" and module not in sys.stdlib_module_names
    if not (foreign or re.fullmatch(_BESIDE, name)):
        return None
    if re.fullmatch(_LISTS, name):
        return _List
    return _Dictionary if re.fullmatch(_DICTIONARIES, name) else _Nothing


class _Nothing:
    """Accepts the content that a pickle gives to an object, and drops it."""

    def __new__(cls, *arguments, **options):
        return super().__new__(cls)

    def __init__(self, *arguments, **options):
        pass

    def __setstate__(self, state):
        pass


class _Dictionary:
    """Creates a plain dictionary, as torch fills no other."""

    def __new__(cls, *arguments, **options):
        return OrderedDict()


class _List:
    """Creates a plain list, as torch fills no other."""

    def __new__(cls, *arguments, **options):
        return []
