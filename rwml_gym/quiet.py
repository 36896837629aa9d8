"""Loading and saving without the progress bars of the libraries underneath."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["without_progress_bars"]


@contextmanager
def without_progress_bars(logging: Any) -> Iterator[None]:
    """No progress bars of a Hugging Face library while the context lasts; afterwards as before.

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
