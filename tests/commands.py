"""Commands run inside the tests' own process, and what ends a training."""

import contextlib
import io
import signal

import pytest

from keras_vit.cli import main
from keras_vit.runs import Progress


def printed(*arguments):
    """The exit status and the output of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = main([str(argument) for argument in arguments])
    return status, output.getvalue()


def end_twice(monkeypatch, *arguments):
    """Runs a command that trains two epochs of three steps or more, and ends it twice: by
    SIGTERM after the second step, and by an error after the second evaluation.
    """
    step, evaluated = Progress.on_train_batch_end, Progress.on_epoch_end

    def preempted(self, batch, logs=None):
        step(self, batch, logs)
        if int(self.model.optimizer.iterations) == 2:
            signal.raise_signal(signal.SIGTERM)

    def dies(self, epoch, logs=None):
        evaluated(self, epoch, logs)
        if epoch == 1:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_train_batch_end", preempted)
        with pytest.raises(SystemExit) as end:
            printed(*arguments)
        assert end.value.code == 75
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_epoch_end", dies)
        with pytest.raises(MemoryError):
            printed(*arguments)
