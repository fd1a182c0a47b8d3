"""The way out of every wait: whoever waits hears at once that the scheduler is to stop."""

import os
import selectors
import weakref


class Ending:
    """`wanted` says that `ask` was called; the descriptor is readable from then on."""

    def __init__(self) -> None:
        self.wanted = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._close = weakref.finalize(self, _close_both, self._reader, self._writer)

    def fileno(self) -> int:
        return self._reader

    def ask(self) -> None:
        """Ask for the end; safe in a signal handler."""
        self.wanted = True
        os.write(self._writer, b"\0")

    def rest(self, seconds: float) -> bool:
        """Wait for so long, or until the end is wanted; return whether it is."""
        with selectors.PollSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.select(seconds)
        return self.wanted


def _close_both(reader: int, writer: int) -> None:
    os.close(reader)
    os.close(writer)
