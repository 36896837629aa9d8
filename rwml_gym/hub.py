"""Whether a model hub can be reached at all, asked before its client retries for a minute."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

__all__ = ["hub_resolves"]


def hub_resolves() -> bool:
    """Whether the model hub may be asked and its name resolves (or a proxy is to do that)."""
    from huggingface_hub import constants  # not needed to import this package

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return not constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
