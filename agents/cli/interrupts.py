"""Ctrl-C and SIGTERM: both end a command in the same way, with what is finished kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Terminated", "exit_status", "sigterm_raises"]


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; whatever handles Ctrl-C handles it."""


def exit_status(error: KeyboardInterrupt) -> int:
    """Return the status by which shells know an interrupted command: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM, in the main thread; elsewhere signals have no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
