"""Signals that ask a training to stop at the end of a step."""

import os
import signal
import threading

import keras

# EX_TEMPFAIL of sysexits.h ("try again"), and the code of shells for Ctrl-C.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class StopSignals:
    """Records SIGTERM and SIGINT while `fit` runs; a second one has its usual effect.

    Attributes:
        received: number of the signal, or `None`.
    """

    def __init__(self) -> None:
        self.received = None
        self._previous = {}

    @property
    def name(self) -> str:
        """Name of the signal that was received here or, by default, SIGTERM."""
        return signal.Signals(self.received or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """Exit code of the process."""
        return EXIT_CODES[self.received or signal.SIGTERM]

    def install(self, model: keras.Model) -> None:
        """Installs the handlers, if this is the main thread: Python allows no other.

        Args:
            model: model that is being fitted.
        """
        self.restore()
        self.received = None
        self._model = model
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                # A shell makes its background jobs ignore Ctrl-C; they still do.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Puts the previous handlers back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number, frame):
        if self.received is None and self._is_in_fit(frame):
            self.received = number
            text = f"\n{self.name}: training stops after this step; repeat to stop now.\n"
            os.write(2, text.encode())  # the signal may have interrupted a `print`
            return
        # A second signal, or one after a `fit` that ended with an error.
        self.restore()
        signal.raise_signal(number)

    def _is_in_fit(self, frame):
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is self._model:
                return True
            frame = frame.f_back
        return False
