"""Calls of what is not ours, a server or a user's function: how long they may take, and where a key may be sent."""

from __future__ import annotations

import ipaddress
import queue
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

__all__ = ["may_send_key", "within"]

Result = TypeVar("Result")


class _Passed(BaseException):
    """The deadline has passed; no `Exception`, so that a call that tries again after errors does not catch it."""


def within(seconds: float | None, call: Callable[[], Result]) -> Result:
    """Return what a call returns, if it does in time.

    In the main thread, where the system has timers (not on Windows), the call is interrupted as soon as it runs Python
    code. Elsewhere it runs in a thread of its own, which nothing can stop: after the deadline it goes on unheard.

    Args:
        seconds: The deadline, which a server cannot put off by sending a byte at a time; None for none.
        call: The call.

    Raises:
        TimeoutError: If it takes longer.
    """
    if seconds is None:
        return call()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # a timer that is already running, such as that of a test, is left alone
    if in_main_thread and hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]:
        return _interrupted(seconds, call)
    return _in_thread(seconds, call)


def may_send_key(address: str) -> bool:
    """Return whether a secret may be sent to an address: over https, or to this machine.

    >>> may_send_key("https://api.example.com/v1"), may_send_key("http://localhost:8000/v1")
    (True, True)
    >>> may_send_key("http://gpu-box:8000/v1")
    False
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        local = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "https" or local


def _interrupted(seconds: float, call: Callable[[], Result]) -> Result:
    def interrupt(*_: Any) -> None:
        raise _Passed

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Passed:
        raise _late(seconds) from None
    finally:
        signal.signal(signal.SIGALRM, before)


def _in_thread(seconds: float, call: Callable[[], Result]) -> Result:
    outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # raised again in the caller's thread
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise _late(seconds) from None
    if error is not None:
        raise error
    return result


def _late(seconds: float) -> TimeoutError:
    return TimeoutError(f"no answer within {seconds:g} s")
