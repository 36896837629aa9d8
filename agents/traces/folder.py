"""The folder of an evaluation: written line by line while it runs, gone on with after an interruption, read again.

`run.json` says who plays what; `steps.jsonl` has one line a step; `episodes.jsonl` one a finished episode. A line is
handed to the operating system before the next step begins. Lines come in the order of events; a finished evaluation
puts them in the order of the panel, so that the same episodes give the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord, record_of
from rwml_gym.errors import ConfigMismatchError, StorageError
from rwml_gym.files import read_json, write_json
from rwml_gym.storage.lock import WriteLock
from rwml_gym.text import finite

__all__ = ["EPISODES", "HEADER", "STEPS", "Trace", "TraceWriter", "read_trace"]

HEADER, STEPS, EPISODES = "run.json", "steps.jsonl", "episodes.jsonl"

_OTHERS = {"config.json": "a training", "dataset_info.json": "recorded transitions"}  # by a file that says so

_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in (StepRecord, EpisodeRecord)}
_VALUES = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Trace:
    """What an evaluation wrote.

    Attributes:
        folder: Its folder.
        header: Who played what, see `TraceWriter`.
        episodes: The finished episodes, by number.
    """

    folder: Path
    header: Mapping[str, Any]
    episodes: list[EpisodeRecord]

    def steps(self) -> Iterator[StepRecord]:
        """Read the steps of the finished episodes, one at a time, in the order of the file."""
        finished = {episode.episode for episode in self.episodes}
        for content, _ in _lines(self.folder / STEPS):
            record = record_of(StepRecord, content)
            if record.episode in finished:
                yield record


def read_trace(folder: str | Path) -> Trace:
    """Read the folder of an evaluation, finished or not.

    Raises:
        StorageError: If it is none.
    """
    folder = Path(folder)
    try:
        header = read_json(folder / HEADER)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Expected the folder of an evaluation, which `rwml-gym evaluate --run-dir` makes, actual: {str(folder)!r} "
            f"({getattr(error, 'strerror', None) or error} in {HEADER})."
        ) from error
    if not isinstance(header, dict):
        raise StorageError(f"Expected a mapping in {str(folder / HEADER)!r}, actual: {type(header).__name__}.")
    found = {r.episode: r for r in (record_of(EpisodeRecord, line) for line, _ in _lines(folder / EPISODES))}
    return Trace(folder, header, [found[number] for number in sorted(found)])


class TraceWriter:
    """Appends steps and episodes to the files of a folder; several threads may write.

    No other writer has the folder until this one is closed or its process has ended.

    A folder that has the same header is gone on with: finished episodes stay, and the steps of unfinished ones are
    removed, because those are played again.

    Args:
        folder: The folder; it is made if absent.
        header: Who plays what. A folder with another header is refused, except for `made_with`: versions and commit.

    Attributes:
        episodes: The finished episodes by their number, those of earlier calls included.

    Raises:
        ConfigMismatchError: If the folder is of another evaluation.
        StorageError: If it cannot be written, or another evaluation writes there.
    """

    def __init__(self, folder: str | Path, header: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._held = WriteLock(self.folder / ".lock", self.folder, "choose another --run-dir")
        try:
            self._open(json.loads(json.dumps(header)))
        except BaseException:
            self._held.release()
            raise

    def step(self, record: StepRecord) -> None:
        """Append a step."""
        self._append(record)

    def end(self, record: EpisodeRecord) -> None:
        """Append a finished episode, whose steps were appended before."""
        self._append(record)
        self.episodes[record.episode] = record

    def close(self, complete: bool = False) -> None:
        """Close the files.

        Args:
            complete: Whether all episodes are finished: the lines are then put in the order of the panel.
        """
        try:
            for file in self._files.values():
                file.close()
            if complete:
                with _storing(self.folder):
                    self._recover()
        finally:
            self._held.release()

    def _open(self, header: Mapping[str, Any]) -> None:
        begun = (self.folder / HEADER).exists()
        if begun:
            _check_same(self.folder, read_trace(self.folder).header, header)
        elif (self.folder / STEPS).exists() or (self.folder / EPISODES).exists():
            raise StorageError(
                f"Expected {HEADER} beside the lines in {str(self.folder)!r}, actual: none. Choose another --run-dir."
            )
        elif other := [name for name in _OTHERS if (self.folder / name).exists()]:
            raise ConfigMismatchError(
                f"Expected a folder for an evaluation, actual: {str(self.folder)!r}, which holds {_OTHERS[other[0]]}. "
                "Choose another --run-dir."
            )
        with _storing(self.folder):
            if not begun:
                write_json(self.folder / HEADER, header)
            self.episodes = self._recover()
            self._files: dict[type, BinaryIO] = {
                StepRecord: (self.folder / STEPS).open("ab", buffering=0),
                EpisodeRecord: (self.folder / EPISODES).open("ab", buffering=0),
            }

    def _append(self, record: StepRecord | EpisodeRecord) -> None:
        content = _content(record)
        try:
            text = _encode(content)
        except ValueError:  # JSON has no NaN and no infinity
            text = _encode(finite(content))
        line = f"{text}\n".encode(errors="backslashreplace")
        with self._lock, _storing(self.folder):
            file = self._files[type(record)]
            while line:  # an unbuffered write may take a part
                line = line[file.write(line) or 0 :]

    def _recover(self) -> dict[int, EpisodeRecord]:
        """Put the lines of the finished episodes in order, drop the others, and return those episodes."""
        episodes = {}
        for content, line in _lines(self.folder / EPISODES):
            record = record_of(EpisodeRecord, content)
            episodes[record.episode] = (record, line)
        steps: dict[int, dict[int, bytes]] = {}
        for content, line in _lines(self.folder / STEPS):
            step = record_of(StepRecord, content)
            steps.setdefault(step.episode, {})[step.step] = line
        whole = [n for n, (record, _) in sorted(episodes.items()) if len(steps.get(n, ())) == record.steps]
        _replace(self.folder / STEPS, [steps[n][number] for n in whole for number in sorted(steps.get(n, ()))])
        _replace(self.folder / EPISODES, [episodes[n][1] for n in whole])
        return {n: episodes[n][0] for n in whole}


def _content(record: StepRecord | EpisodeRecord) -> dict[str, Any]:
    return dict(zip(_FIELDS[type(record)], _VALUES[type(record)](record), strict=True))


def _lines(path: Path) -> Iterator[tuple[Any, bytes]]:
    """Read the values and bytes of the lines of a file; a last line that was written only in part is none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n"):
                    return
                yield json.loads(line), line
            except ValueError as error:
                raise StorageError(
                    f"Expected JSON in line {number} of {str(path)!r}, actual: {line[:80]!r}. Remove the line."
                ) from error


def _replace(path: Path, lines: list[bytes]) -> None:
    """Replace the content of a file at once, unless that is its content."""
    content = b"".join(lines)
    if path.exists() and path.read_bytes() == content:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = sorted(key for key in {*old, *new} - {"made_with"} if old.get(key) != new.get(key))
    if changed:
        differences = ", ".join(f"{key} {new.get(key)!r} (there: {old.get(key)!r})" for key in changed)
        raise ConfigMismatchError(
            f"Expected the evaluation of {str(folder)!r}, actual: another {differences}. Choose another --run-dir."
        )


@contextlib.contextmanager
def _storing(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"Expected to write to {str(folder)!r}, actual: {error.strerror or error}. What came before is kept: make "
            "room, and repeat the command, which goes on from there."
        ) from error
