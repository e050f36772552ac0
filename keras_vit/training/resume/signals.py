"""Signals that ask a training to stop at the end of a step."""

import os
import signal
import threading

# EX_TEMPFAIL of sysexits.h: "try again"; and what shells give for Ctrl-C.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class StopSignals:
    """Notes SIGTERM and SIGINT while `fit` runs; a second one does what it always does.

    Attributes:
        received: the signal, or `None`.
    """

    def __init__(self):
        self.received = None
        self._previous = {}

    @property
    def name(self) -> str:
        """Of the signal that was received, here or by another process."""
        return signal.Signals(self.received or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """With which the process is to end."""
        return EXIT_CODES[self.received or signal.SIGTERM]

    def install(self, model) -> None:
        """Begins to listen, if this is the main thread, where alone Python can.

        Args:
            model: the one that is being fitted.
        """
        self.restore()
        self.received = None
        self._model = model
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                # What a shell starts in the background ignores Ctrl-C, and shall.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Has the signals do again what they did before."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number, frame):
        if self.received is None and self._is_in_fit(frame):
            self.received = number
            text = f"\n{self.name}: training ends after this step; once more ends it now.\n"
            os.write(2, text.encode())  # `print` may be what the signal interrupts
            return
        # A second one, or one after a `fit` that ended with an error.
        self.restore()
        signal.raise_signal(number)

    def _is_in_fit(self, frame):
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is self._model:
                return True
            frame = frame.f_back
        return False
