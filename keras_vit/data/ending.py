"""The end of a process that reads streams.

The threads of `tf.data` call Python, and the destructor of an iterator waits for them.
Once Python finalizes, no other thread can run it: an iterator that is alive then waits for
ever. So every iterator is emptied before, when the program has ended and Python has not.

A forked process has its parent's iterators without their threads. There they are never
destroyed, and reading one is an error.
"""

import atexit
import ctypes
import functools
import gc
import os
import signal
import threading
import time
from collections.abc import Callable

from keras_vit.data.packages import tensorflow
from keras_vit.log import log

QUIET = 0.1  # seconds without a call, after which none is expected
PATIENCE = 5.0  # seconds in which those that have begun should end


class Calls:
    """The calls of Python functions by the threads of streams."""

    def __init__(self):
        self.begin()

    def begin(self) -> None:
        """Counts from none on."""
        self._are_over = False
        self._running = 0
        self._last = 0.0  # when one began or ended
        self._lock = threading.Lock()

    def end(self) -> None:
        """Lets no other call begin, and waits for those that have."""
        self._are_over = True
        deadline = time.monotonic() + PATIENCE
        while not self._is_quiet() and time.monotonic() < deadline:
            time.sleep(0.01)

    def __enter__(self):
        self._count(1)
        if self._are_over:
            self._count(-1)
            raise RuntimeError("The program has ended, and its streams of images with it")

    def __exit__(self, *error):
        self._count(-1)

    def _count(self, number):
        with self._lock:
            self._running += number
            self._last = time.monotonic()

    def _is_quiet(self):
        return not self._running and time.monotonic() - self._last > QUIET


_calls = Calls()


def guarded(function: Callable) -> Callable:
    """The function for threads of a stream to call, which do not outlive the program."""
    _watch()

    def call(*args):
        with _calls:
            return function(*args)

    return call


@functools.cache
def _watch() -> None:
    """Has this process end its iterators with the program, and its children lose them."""
    # TensorFlow is imported by now, so this comes before what it does at the end itself.
    atexit.register(_end)
    if hasattr(os, "register_at_fork"):  # not on Windows
        # In the child, which has no other thread: while a list of all objects is held,
        # Python fails in any thread that is making a tuple.
        os.register_at_fork(after_in_child=_lose_inherited)


def _end():
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # an impatient Ctrl-C ends at once
    gc.unfreeze()  # frozen objects would not be found
    for iterator in _iterators():
        try:
            _empty(iterator)
        except Exception as error:
            log.warning("An iterator over images could not be ended: %s", error)
    _calls.end()  # those of an iterator that another thread is reading


# TensorFlow has no public way to end an iterator that others hold.
RESOURCES = ("_iterator_resource", "_multi_device_iterator_resource")


def _iterators() -> list:
    """Every iterator of `tf.data`, also those that only a traceback or a frame holds."""
    from tensorflow.python.data.ops.multi_device_iterator_ops import (
        OwnedMultiDeviceIterator,
    )

    objects = gc.get_objects()
    sought = (tensorflow().data.Iterator, OwnedMultiDeviceIterator)
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, sought)}
    return [found for found in objects if type(found) in kinds]


def _empty(iterator):
    """Stops the threads of an iterator, which has come to its end then."""
    ops = tensorflow().raw_ops
    single, multiple = (getattr(iterator, name, None) for name in RESOURCES)
    if _is_eager(single):
        ops.MakeIterator(dataset=_nothing(iterator), iterator=single)
    elif _is_eager(multiple):
        ops.MultiDeviceIteratorInit(
            dataset=_nothing(iterator), multi_device_iterator=multiple, max_buffer_size=1
        )


def _is_eager(resource):
    return isinstance(resource, tensorflow().__internal__.EagerTensor)


def _nothing(iterator):
    """A data set without elements, of the types of those of an iterator."""
    tf = tensorflow()

    def zeros(spec):
        return tf.zeros([size or 0 for size in spec.shape], spec.dtype)

    dataset = getattr(iterator, "_dataset", None)  # not of one for several devices
    if dataset is None:
        example = tf.nest.map_structure(zeros, iterator.element_spec)
        dataset = tf.data.Dataset.from_tensors(example)
    return dataset.take(0)._variant_tensor


def _lose_inherited():
    """Keeps destructors in a forked process from waiting for threads that it lacks."""
    _calls.begin()
    for iterator in _iterators():
        for name in RESOURCES:
            if hasattr(iterator, name):
                _keep_for_ever(getattr(iterator, name))
                setattr(iterator, name, Lost())


def _keep_for_ever(thing):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Lost:
    """Stands for an iterator's resource in a process that has not its threads."""

    def __tf_tensor__(self, dtype=None, name=None):
        raise RuntimeError(
            "A forked process cannot read an iterator of its parent, whose threads it has "
            "not. Make one in this process: iter(data.train)"
        )
