"""Ends a run that hangs, so that whatever started it can start it anew."""

import faulthandler
import sys


class Watchdog:
    """Ends a run that hangs: this process writes the stack of every thread to stderr, and exits with code 1.

    The process need not be able to run Python for it: a thread of the interpreter's own waits.
    """

    def __init__(self, seconds: float):
        """Watches nothing yet. seconds: 0 watches nothing at all."""
        self._seconds = seconds

    def __enter__(self):
        self.wait_anew()
        return self

    def wait_anew(self) -> None:
        """Waits anew, at most `seconds` until the next call."""
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=sys.__stderr__)

    def __exit__(self, *_):
        faulthandler.cancel_dump_traceback_later()
