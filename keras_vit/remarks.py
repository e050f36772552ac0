"""TensorFlow's remarks as it starts, left out of the standard error stream.

Its C++ code writes them as it is loaded, before it has read `TF_CPP_MIN_LOG_LEVEL`: which
processor there is, that there is no GPU. A process of its own reads the stream meanwhile
and passes all the rest on at once, so that nothing is lost even if this process dies.
Later remarks it keeps back itself, at level 1, unless the user has set another.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

LEVEL, ALL, WITHOUT_REMARKS = "TF_CPP_MIN_LOG_LEVEL", "0", "1"
SECONDS = 10  # to wait for what was written last

_REMARKS = (
    r"I\d{4} \d\d:\d\d:",  # of the level "information", as absl writes it
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I ",  # and as TensorFlow did before
    r"WARNING: All log messages before absl::InitializeLog",
    r"To enable the following instructions: ",  # the second line of a remark
)
# TensorFlow leaves GPUs to Keras' backend where that is another one.
_OF_GPUS = r"E\d{4} .* failed call to cuInit"

_FILTER = """
import re, sys
remark = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not remark.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def leave_out_at_import() -> None:
    """Has the first import of TensorFlow leave its remarks out, whoever imports it."""
    if "tensorflow" not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Finder:
    """Finds TensorFlow where the others do, and has its loader be quiet."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._quieten(spec.loader)
        return spec

    def _quieten(self, loader):
        execute = loader.exec_module

        def exec_module(module):
            vars(loader).pop("exec_module", None)
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)
            os.environ.setdefault(LEVEL, WITHOUT_REMARKS)
            with left_out():
                execute(module)

        with contextlib.suppress(AttributeError):  # of a loader without a dictionary
            loader.exec_module = exec_module


_finder = _Finder()


@contextlib.contextmanager
def left_out(of_gpus: bool = False) -> Iterator[None]:
    """Within it TensorFlow may be imported without its remarks; errors are shown.

    `TF_CPP_MIN_LOG_LEVEL=0` shows all.

    Args:
        of_gpus: whether to leave out also that there is none which it could use.
    """
    begun = _begin((*_REMARKS, _OF_GPUS) if of_gpus else _REMARKS)
    try:
        yield
    finally:
        if begun is not None:
            _end(*begun)


def _begin(remarks):
    """A copy of the stream and the process between, or `None` where there can be none."""
    if os.environ.get(LEVEL) == ALL or not _has_python():
        return None
    try:
        stream = os.dup(2)
    except OSError:  # closed
        return None
    try:
        process = subprocess.Popen(
            [sys.executable, "-ISc", _FILTER, "|".join(remarks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,  # Ctrl-C is not for it
        )
    except OSError:
        os.close(stream)
        return None
    _flush()
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    return stream, process


def _end(stream, process):
    _flush()
    os.dup2(stream, 2)
    os.close(stream)
    # A program that was started meanwhile may still write there: it is not waited for.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS)


def _has_python():
    """True if `sys.executable` is an interpreter, and not a program that holds one."""
    name = os.path.basename(sys.executable or "")
    return os.name == "posix" and "python" in name and not hasattr(sys, "frozen")


def _flush():
    if sys.stderr is not None:
        sys.stderr.flush()
