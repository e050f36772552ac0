"""Assumption: `fit` asks its model for `_initial_epoch`, and its iterator over an epoch for
`_enumerate_iterator`.

Keras can begin at an epoch, and has no public way to begin in the middle of one. The first
attribute is the one that `BackupAndRestore` sets. The second yields (first step, last step,
iterator) for each call of the training function.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import dataclasses
import itertools

import keras

from keras_vit.keras_internals.assumption import private
from keras_vit.keras_internals.data_adapters import shuffles
from keras_vit.keras_internals.distribute_strategy import element_spec
from keras_vit.keras_internals.fit_frame import variables_of_fit
from keras_vit.keras_internals.symbolic_build import symbolic_build


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in a training: epoch, step, and batches in all.

    Args:
        epoch: int, the epoch it is in, from 0.
        step: int, batches of it that have been trained on.
        total: int, batches since the training began.
        is_epoch_done: whether the epoch has no more; its validation comes next.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    is_epoch_done: bool = False

    def __str__(self):
        return f"step {self.total} (epoch {self.epoch + 1}, batch {self.step})"


class FitLoop:
    """The `fit` that calls a callback: its data, its callbacks, its place.

    Args:
        model: the model that is being fitted.

    Attributes:
        callbacks: the `CallbackList`.
        first_epoch: int, `initial_epoch` as `fit` was given it.

    Raises:
        RuntimeError: if it is trained by another loop than `keras.Model.fit`.
        AssumptionError: if Keras trains in another way than is assumed here.
    """

    def __init__(self, model: keras.Model):
        variables = variables_of_fit(model)
        self.model = model
        self.callbacks = variables["callbacks"]
        self.first_epoch = variables["initial_epoch"]
        self._epoch_iterator = variables["epoch_iterator"]
        private(model, "_initial_epoch", "ExactResume")
        private(self._epoch_iterator, "_enumerate_iterator", "ExactResume")

    def check_order_of_data(self) -> None:
        """Checks that Keras does not shuffle the data by a generator of its own.

        Raises:
            ValueError: if it does.
        """
        # Those of arrays and of a `PyDataset`; others Keras does not shuffle.
        if shuffles(self._epoch_iterator.data_adapter):
            raise ValueError(
                "`ExactResume` needs data whose order it can repeat. Received: data that "
                "`fit` shuffles as it goes. Give it shuffle=False, and shuffle by a seed "
                "of your own: keras_vit.data.load((images, labels)), or a "
                "`keras.utils.PyDataset`."
            )

    def build(self) -> None:
        """Metrics and optimizer, which Keras on TensorFlow builds in the first step."""
        model = self.model
        if keras.backend.backend() == "tensorflow":
            specs = element_spec(self._epoch_iterator)
            batch = keras.tree.map_structure(_symbolic, specs)
            leaves = keras.tree.flatten(batch)
            if all(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
                symbolic_build(model, batch, "ExactResume")
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    def begin_at(self, position: Position, is_at_position: bool, logs: dict) -> None:
        """Has `fit` begin with what is left of an epoch.

        Args:
            position: where.
            is_at_position: whether the data begins there by itself; else what comes
                before is read, and not trained on.
            logs: what the last step gave.
        """
        # Keras' way for `BackupAndRestore`; 0 is for "as `fit` was told".
        self.model._initial_epoch = position.epoch
        if position.step:
            epoch = self._rest_of_epoch(position, is_at_position, logs)
            self._epoch_iterator._enumerate_iterator = lambda: epoch

    def reset_begin(self) -> None:
        """The next `fit` begins where it is told to."""
        self.model._initial_epoch = 0

    def _rest_of_epoch(self, position, is_at_position, logs):
        epoch_iterator = self._epoch_iterator
        del epoch_iterator._enumerate_iterator  # for this once
        if not is_at_position:
            self._skip_epochs(position.epoch - self.first_epoch)
        is_left = False
        for begin, end, iterator in epoch_iterator._enumerate_iterator():
            if begin >= position.step:
                if not is_left and epoch_iterator.num_batches is None:
                    # No more batches may come, and on JAX Keras fails without a step.
                    yield from self._step_of_before(position, logs)
                is_left = True
                yield begin, end, iterator
                continue
            if not is_at_position:
                _skip(iterator, epoch_iterator.steps_per_execution, position)
            if position.is_epoch_done and end + 1 >= position.step:
                break  # where only that epoch's `fit` knew its end
        if not is_left:
            yield from self._step_of_before(position, logs)

    def _step_of_before(self, position, logs):
        """A step that does nothing: `fit` needs one to come to the end of an epoch."""
        model, train_function = self.model, self.model.train_function

        def nothing(*state_and_data):
            return (logs, state_and_data[0]) if len(state_and_data) == 2 else logs

        hooks = ("on_train_batch_begin", "on_train_batch_end")
        model.train_function = nothing
        for hook in hooks:
            setattr(self.callbacks, hook, lambda *arguments: None)
        try:
            step = position.step - 1
            yield step, step, itertools.repeat(None)
        finally:
            model.train_function = train_function
            for hook in hooks:
                delattr(self.callbacks, hook)

    def _skip_epochs(self, number):
        """Reads what earlier epochs have read, where the data goes on from one to the
        next.
        """
        epoch_iterator = self._epoch_iterator
        for _ in range(number):
            if epoch_iterator.steps_per_epoch is None:
                epoch_iterator.data_adapter.on_epoch_begin()
                epoch_iterator.data_adapter.on_epoch_end()
                continue
            for _, _, iterator in epoch_iterator._enumerate_iterator():
                _skip(iterator, epoch_iterator.steps_per_execution, "the epoch")


def _symbolic(spec):
    if not hasattr(spec, "shape"):
        return spec
    return keras.KerasTensor(tuple(spec.shape), spec.dtype.name)


_END = object()


def _skip(iterator, number, position):
    for i in range(number):
        if next(iterator, _END) is _END:
            if i:
                return  # of several steps at a time the last of an epoch have fewer
            raise ValueError(
                f"The data ended before {position}, where the checkpoint is. It must be "
                "the same in each run."
            )
