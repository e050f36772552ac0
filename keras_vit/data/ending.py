"""End of a program's iterators: no destructor waits for threads of `tf.data` for ever.

Threads of `tf.data` call Python functions, and the destructor of an iterator waits for
these calls. The wait has no end in three places:

- While Python finalizes, no other thread can run Python. So all iterators are emptied
  before: when the program has ended and Python has not begun to finalize.
- In a thread of `tf.data`, where the garbage collector can run, too, the destructor waits
  for the very call that it is in. So iterators are destroyed in the main thread, or in a
  thread of their own.
- A forked process has its parent's iterators without their threads. There they are never
  destroyed, and reading one is an error.

A fourth wait ends after up to a minute: for the thread that tunes a stream, see `untuned`.

TensorFlow has no public way to list iterators, to end one that others hold, or to choose
the thread that destroys it. So this file, and no other, replaces `__init__` and `__del__`
of the classes in `RESOURCES` and reads their resources. It was written for TensorFlow
2.21, where an iterator's resource lives as long as the tensor in that attribute.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import functools
import importlib
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from keras_vit.data.packages import tensorflow
from keras_vit.log import log

if TYPE_CHECKING:
    import tensorflow as tf

QUIET = 0.1  # seconds without a call, after which none is expected
PATIENCE = 5.0  # seconds in which those that have begun should end

# Modules of `tensorflow.python.data.ops` and classes: the attributes with the resource.
RESOURCES = {
    ("iterator_ops", "OwnedIterator"): "_iterator_resource",
    ("multi_device_iterator_ops", "OwnedMultiDeviceIterator"): (
        "_multi_device_iterator_resource"
    ),
}


class Calls:
    """Counts the calls of Python functions by the threads of streams."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Counts from zero and lets calls begin."""
        self._are_over = False
        self._running = 0
        self._last = 0.0  # time at which a call last began or ended
        self._lock = threading.Lock()

    def end(self) -> None:
        """Lets no other call begin, and waits for those that run."""
        self._are_over = True
        deadline = time.monotonic() + PATIENCE
        while not self._is_quiet() and time.monotonic() < deadline:
            time.sleep(0.01)

    def __enter__(self) -> None:
        self._count(1)
        if self._are_over:
            self._count(-1)
            raise RuntimeError("The program has ended, and its streams of images with it")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._count(-1)

    def _count(self, number):
        with self._lock:
            self._running += number
            self._last = time.monotonic()

    def _is_quiet(self):
        return not self._running and time.monotonic() - self._last > QUIET


_calls = Calls()
# A weak reference to each iterator, in the order of their making. Listing and changing a
# dictionary are single steps for other threads; a `WeakSet` can change while it is listed.
_known: dict[weakref.ref, None] = {}


def untuned(stream: tf.data.Dataset[Any]) -> tf.data.Dataset[Any]:
    """Returns a `tf.data.Dataset` that `tf.data` does not tune.

    Its tuning thread sleeps for up to a minute. The destructor of an iterator wakes it
    and waits for it, but a thread that is just about to sleep misses the call.
    """
    options = tensorflow().data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function that threads of a stream call: no call outlives the program."""
    _watch()

    def call(*args):
        with _calls:
            return function(*args)

    return call


@functools.cache
def _watch() -> None:
    """Records iterators from now on, and ends them with this process and its children.

    Earlier iterators call no guarded function and need no care.
    """
    classes = [found for names in RESOURCES if (found := _iterator_class(*names))]
    for iterator_class in classes:
        _record(iterator_class)
    # TensorFlow is imported by now, so this runs before TensorFlow's own handlers.
    atexit.register(_end, classes)
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_lose_inherited)


def _iterator_class(module: str, name: str) -> type | None:
    try:
        return getattr(
            importlib.import_module(f"tensorflow.python.data.ops.{module}"), name
        )
    except (ImportError, AttributeError):
        log.warning(
            "TensorFlow %s has no `%s.%s`, whose instances keras_vit ends. A program that "
            "reads images may hang when it ends. TensorFlow 2.21 is known to work.",
            *(tensorflow().__version__, module, name),
        )
        return None


def _record(iterator_class: type) -> None:
    """Has a class of iterators record its instances and be destroyed in safe threads."""
    original = iterator_class.__init__

    @functools.wraps(original)
    def init(self, *args, **kwargs):
        # First, as Ctrl-C can come at any moment after the resource is made.
        _known[weakref.ref(self, _known.pop)] = None
        original(self, *args, **kwargs)

    iterator_class.__init__ = init
    iterator_class.__del__ = _destroy


def _destroy(iterator) -> None:
    """The `__del__` of an iterator: moves its resource out of a thread of `tf.data`.

    Such a thread cannot be told from others by public means, so all but the main one
    leave the resource to a new thread. That one holds no lock and is in no call.
    """
    if threading.get_ident() == threading.main_thread().ident:
        return
    # The list alone holds the attributes, so that the new thread drops the last reference.
    held = [vars(iterator).copy()]
    vars(iterator).clear()
    try:
        _thread.start_new_thread(held.clear, ())  # takes no lock, as `threading` does
    except RuntimeError:  # no thread can be made
        _keep_for_ever(held)


def _end(classes):
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends at once
    for iterator in _iterators():
        try:
            _empty(iterator)
        except Exception as error:
            log.warning("An iterator over images could not be ended: %s", error)
    _calls.end()  # also those of an iterator that another thread is reading
    for iterator_class in classes:
        del iterator_class.__del__  # whose globals go while Python finalizes


def _iterators() -> list:
    """Every recorded iterator that is alive, in the order of their making."""
    return [found for known in list(_known) if (found := known()) is not None]


def _empty(iterator):
    """Stops the threads of an iterator: replaces its data by none."""
    ops = tensorflow().raw_ops
    single, multiple = (getattr(iterator, name, None) for name in RESOURCES.values())
    if _is_eager(single):
        ops.MakeIterator(dataset=_nothing(iterator), iterator=single)
    elif _is_eager(multiple):
        ops.MultiDeviceIteratorInit(
            dataset=_nothing(iterator), multi_device_iterator=multiple, max_buffer_size=1
        )


def _is_eager(resource):
    return isinstance(resource, tensorflow().__internal__.EagerTensor)


def _nothing(iterator):
    """Variant tensor of a data set without elements, of the types of an iterator's."""
    tf = tensorflow()

    def zeros(spec):
        return tf.zeros([size or 0 for size in spec.shape], spec.dtype)

    dataset = getattr(iterator, "_dataset", None)  # iterators of several devices have none
    if dataset is None:
        example = tf.nest.map_structure(zeros, iterator.element_spec)
        dataset = tf.data.Dataset.from_tensors(example)
    return dataset.take(0)._variant_tensor


def _lose_inherited():
    """Keeps destructors in a forked process from waiting for threads that it lacks."""
    _calls.begin()
    for iterator in _iterators():
        for name in RESOURCES.values():
            if hasattr(iterator, name):
                _keep_for_ever(getattr(iterator, name))
                setattr(iterator, name, Lost())


def _keep_for_ever(thing):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Lost:
    """Stands for an iterator's resource in a process that lacks its threads."""

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> NoReturn:
        raise RuntimeError(
            "A forked process cannot read an iterator of its parent, whose threads it "
            "lacks. Make one in this process: iter(data.train)"
        )
