"""Ctrl-C, SIGTERM and SIGHUP as a request to save and stop, not as an accident."""

import contextlib
import os
import signal
import threading
from typing import Any, Self


class StopRequest:
    """Context manager in which SIGINT, SIGTERM and SIGHUP (a terminal that closes; not under nohup) only set
    `requested`; check it between two steps of work.

    The first signal prints one line, unless `quiet`; the second SIGINT raises KeyboardInterrupt at once. On leaving,
    the handlers are as they were. Signals reach the main thread only: in any other thread this does nothing. With
    `launched` every further signal is ignored: a launcher passes on what the terminal has sent already."""

    def __init__(self, *, quiet: bool = False, launched: bool = False) -> None:
        self.requested, self.quiet, self.launched = False, quiet, launched
        self._interrupts = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            caught = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGBREAK"):  # Windows, where a sweep asks its runs to stop by this one
                caught.append(signal.SIGBREAK)
            hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
            if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
                caught.append(hang_up)
            self._before = {number: signal.signal(number, self._handle) for number in caught}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: a handler that python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, _: object) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts >= 2 and not self.launched:
            raise KeyboardInterrupt
        if not self.requested and not self.quiet:
            # Past python's buffers: this may run in the middle of another print, which must not be entered twice.
            with contextlib.suppress(OSError):
                again = b"" if self.launched else b" (Ctrl-C again: stop at once, without saving)"
                os.write(2, b"\nwill save and stop soon" + again + b"\n")
        self.requested = True
