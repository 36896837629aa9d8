"""A lock between commands that write to the same place; it ends with its process, however that ends."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from rwml_gym.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows, where two commands are not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["WriteLock", "is_locked"]

_PAUSE = 0.02  # seconds between two attempts


class WriteLock:
    """Holds a file that only one command at a time can hold.

    A file system without locks keeps no command out.

    Args:
        path: The file, which is there while the lock is held. Its folder is made if absent.
        place: What only one command may write, for the error's message.
        otherwise: What to do in place of waiting, as the end of that message.
        patience: Seconds to wait for another command that holds it.

    Raises:
        StorageError: If another command holds the file, or it cannot be written.
    """

    def __init__(self, path: Path, place: Path, otherwise: str, patience: float = 0.0) -> None:
        self._path = path
        end = time.monotonic() + patience
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    self._file = _held(path)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(_PAUSE)
        except BlockingIOError as error:
            raise StorageError(
                f"Expected one command at a time that writes to {str(place)!r}, actual: another one does. Wait until "
                f"it ends, or {otherwise}."
            ) from error
        except OSError as error:
            raise StorageError(
                f"Expected to write to {str(place)!r}, actual: {error.strerror or error}. Make room, or {otherwise}."
            ) from error

    def release(self) -> None:
        """Let others hold the file."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def __enter__(self) -> WriteLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Return whether a command holds a file; where there are no locks, none does."""
    if not path.exists():
        return False
    try:
        file = _held(path)
    except OSError:  # it is held, or cannot be written
        return True
    if file is not None:
        path.unlink(missing_ok=True)
        file.close()
    return False


def _held(path: Path) -> BinaryIO | None:
    """Open and lock a file; return `None` where there are no locks, and raise `BlockingIOError` if it is locked."""
    while fcntl is not None:
        file = path.open("ab")
        if os.fstat(file.fileno()).st_size:
            file.close()
            raise OSError(f"{path.name} is a file of another kind")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:  # who held it has just removed it
            pass
        except BlockingIOError:
            file.close()
            raise
        except OSError:  # a file system without locks
            file.close()
            path.unlink(missing_ok=True)
            break
        file.close()
    return None
