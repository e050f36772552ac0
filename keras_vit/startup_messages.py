"""Silences TensorFlow's start-up messages on the standard error stream.

TensorFlow's C++ code writes them as it is loaded, before it reads `TF_CPP_MIN_LOG_LEVEL`:
the kind of processor, the absence of a GPU. A process of its own filters the stream in the
meantime and passes everything else on at once, so that nothing is lost even if this
process crashes. Later messages are silenced by level 1, unless the user has set another.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

LEVEL, SHOW_ALL, NO_INFORMATION = "TF_CPP_MIN_LOG_LEVEL", "0", "1"
TIMEOUT = 10  # seconds to wait for the last lines

_MESSAGES = (
    r"I\d{4} \d\d:\d\d:",  # level "information" of absl
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I ",  # the same of older versions of TensorFlow
    r"WARNING: All log messages before absl::InitializeLog",
    r"To enable the following instructions: ",  # second line of a message
)
# TensorFlow uses no GPU if Keras' backend is another one.
_NO_GPU = r"E\d{4} .* failed call to cuInit"

_FILTER = """
import re, sys
message = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not message.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def silence_at_import() -> None:
    """Silences the messages of the first import of TensorFlow, by whatever package."""
    if "tensorflow" not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Finder:
    """Finds TensorFlow by the other finders, and silences its loader."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._silence(spec.loader)
        return spec

    def _silence(self, loader):
        execute = loader.exec_module

        def exec_module(module):
            vars(loader).pop("exec_module", None)
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)
            os.environ.setdefault(LEVEL, NO_INFORMATION)
            with silenced():
                execute(module)

        with contextlib.suppress(AttributeError):  # a loader without a dictionary
            loader.exec_module = exec_module


_finder = _Finder()


@contextlib.contextmanager
def silenced(no_gpu: bool = False) -> Iterator[None]:
    """Context in which TensorFlow is imported without its messages; errors are shown.

    `TF_CPP_MIN_LOG_LEVEL=0` shows everything.

    Args:
        no_gpu: bool, whether to silence also the error that there is no usable GPU.
    """
    begun = _begin((*_MESSAGES, _NO_GPU) if no_gpu else _MESSAGES)
    try:
        yield
    finally:
        if begun is not None:
            _end(*begun)


def _begin(messages):
    """Starts the filter: (copy of the stream, process), or `None` if that is impossible."""
    if os.environ.get(LEVEL) == SHOW_ALL or not _has_python():
        return None
    try:
        stream = os.dup(2)
    except OSError:  # closed
        return None
    try:
        process = subprocess.Popen(
            [sys.executable, "-ISc", _FILTER, "|".join(messages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,  # Ctrl-C does not stop it
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
    # A program started in the meantime may keep the filter open: do not wait for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TIMEOUT)


def _has_python():
    """True if `sys.executable` is a Python interpreter, not a program that embeds one."""
    name = os.path.basename(sys.executable or "")
    return os.name == "posix" and "python" in name and not hasattr(sys, "frozen")


def _flush():
    if sys.stderr is not None:
        sys.stderr.flush()
