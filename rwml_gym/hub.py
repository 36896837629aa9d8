"""The model hub and its libraries: check that the hub can be reached, and load without progress bars."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

__all__ = ["hub_resolves", "without_progress_bars"]


def hub_resolves() -> bool:
    """Return whether the model hub may be used and its name resolves (or a proxy resolves it)."""
    from huggingface_hub import constants  # not needed to import this package

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return not constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


@contextmanager
def without_progress_bars(logging: Any) -> Iterator[None]:
    """Disable the progress bars of a Hugging Face library within the context, and restore them afterwards.

    Args:
        logging: The library's logging module, `transformers.utils.logging` or `datasets.utils.logging`.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
