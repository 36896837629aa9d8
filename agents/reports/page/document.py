"""The page itself: one HTML file that needs no network, and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import rwml_gym
from rwml_gym.agents.reports.page.evaluation import describe, differences, episode_facts, fatal_steps, steps_of
from rwml_gym.agents.reports.page.packing import DETAILS, Detail, pack
from rwml_gym.agents.reports.page.runs import TrainingFolder, labels, open_runs
from rwml_gym.agents.reports.page.training import describe_training
from rwml_gym.agents.traces.folder import Trace
from rwml_gym.errors import InvalidConfigError, StorageError
from rwml_gym.files import write_text
from rwml_gym.text import finite

__all__ = ["MOST_BYTES", "write_page"]

MOST_BYTES = 15_000_000
"""The page stays below; texts of episodes are left out before it would not."""

_SCRIPTS = ("elements.js", "charts.js", "results.js", "episode.js", "viewer.js", "compare.js", "main.js")
_RESERVE = 1_000_000  # bytes for markup, script, results and the list of episodes


def write_page(
    folders: Sequence[str | Path],
    out: str | Path,
    fatal: bool = True,
    told: Callable[[str], None] = lambda line: None,
    most_bytes: int = MOST_BYTES,
) -> list[str]:
    """Write the page of some evaluations and trainings.

    Args:
        folders: Their folders.
        out: The page.
        fatal: Whether to play failed episodes of ALFWorld again, to find their first fatal steps.
        told: Called with lines on the progress.
        most_bytes: The page stays below, if it can by leaving out texts of the episodes.

    Returns:
        What the page leaves out.

    Raises:
        InvalidConfigError: If a folder is of neither, one is given twice, or there is none.
        StorageError: If a folder cannot be read, or the page cannot be written.
    """
    runs = open_runs(folders)
    out = Path(out)
    _check_writable(out)
    names = labels(runs)
    traces = [(name, run) for name, run in zip(names, runs, strict=True) if isinstance(run, Trace)]
    trainings = [(name, run) for name, run in zip(names, runs, strict=True) if isinstance(run, TrainingFolder)]
    shown: list[dict[str, Any]] = []
    packing = []
    for name, trace in traces:
        steps = steps_of(trace)

        def tell(done: int, of: int, name: str = name) -> None:
            if done % 20 == 0:
                told(f"{name}: {done} of {of} failed games played again to find their first fatal step")

        lost = fatal_steps(trace, steps, tell) if fatal else {}
        shown.append({**describe(name, trace, steps, lost), "fatal": fatal})
        packing.append([(episode_facts(e, lost.get(e.episode)), steps[e.episode]) for e in trace.episodes])
    summary: dict[str, Any] = {
        "version": rwml_gym.__version__,
        "evaluations": shown,
        "differences": differences(traces),
        "trainings": [describe_training(name, run) for name, run in trainings],
    }
    detail, parts = _packed(packing, shown, most_bytes - _RESERVE - len(_as_json(summary)))
    summary["notes"] = [detail.note] if detail.note else []
    try:
        write_text(out, _document(summary, parts))
    except OSError as error:
        raise _unwritable(out, error) from error
    return list(summary["notes"])


def _packed(
    packing: Sequence[Sequence[tuple[dict[str, Any], Any]]], shown: Sequence[dict[str, Any]], limit: int
) -> tuple[Detail, dict[str, str]]:
    """Pack all episodes with as much of their texts as the limit allows, and note in their lines where they are."""
    for detail in DETAILS:
        parts: dict[str, str] = {}
        left: float = limit if detail is not DETAILS[-1] else math.inf  # a page that is too large beats none
        for run, episodes in enumerate(packing):
            found = pack(episodes, detail, left)
            if found is None:
                break
            for number, part in enumerate(found[0]):
                parts[f"part-{run}-{number}"] = part
                left -= len(part)
            for line, place in zip(shown[run]["episodes"], found[1], strict=True):
                line["part"] = place
        else:
            return detail, parts
    raise AssertionError("the last detail has no limit")


def _document(summary: dict[str, Any], parts: dict[str, str]) -> str:
    style, script = _asset("page.css"), "".join(map(_asset, _SCRIPTS))
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'"
    stored = "\n".join(f'<script type="text/plain" id="{name}">{part}</script>' for name, part in parts.items())
    values = {
        "policy": f"{policy}; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": _as_json(summary),
        "parts": stored,
    }
    # In one pass, so that nothing in a value is taken for a place.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _asset("page.html"))


def _as_json(content: Any) -> str:
    """Write JSON that cannot end the element it is in, and has no values that JSON lacks."""
    text = json.dumps(finite(content), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files("rwml_gym.agents.reports.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _check_writable(out: Path) -> None:
    """Raise now what would be raised after all the work."""
    if out.is_dir():
        raise InvalidConfigError(
            f"Expected a file for the page, actual: {str(out)!r} is a folder. Give --out {out / 'report.html'}."
        )
    partial = out.with_name(f".{out.name}-{uuid.uuid4().hex}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Expected to write the page to {str(out)!r}, actual: {error.strerror or error}. Choose another --out."
    )
