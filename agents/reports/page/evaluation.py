"""What a page shows of an evaluation: its facts, results with intervals, gaps, and a line for each episode."""

from __future__ import annotations

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rwml_gym.agents.reports.page.fatal import FatalStep, Replay, plays_alfworld
from rwml_gym.agents.reports.page.histogram import histogram
from rwml_gym.agents.traces.folder import Trace
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.agents.traces.scores import compare, pass_hat, says_who_won, success_interval
from rwml_gym.agents.traces.worlds import world_differences
from rwml_gym.errors import InvalidConfigError, RWMLGymError
from rwml_gym.statistics import known_interval

__all__ = ["describe", "differences", "episode_facts", "facts_of", "fatal_steps", "steps_of"]

_FACTS = ("agent", "model", "env", "split", "domain", "user", "games", "trials", "panel", "max_steps", "seed", "gap")
_TASK_CHARACTERS = 300  # in the list; the episode itself shows the whole task


def steps_of(trace: Trace) -> dict[int, list[StepRecord]]:
    """Return the steps of each finished episode, in their order."""
    found: dict[int, dict[int, StepRecord]] = {episode.episode: {} for episode in trace.episodes}
    for step in trace.steps():
        found[step.episode][step.step] = step
    return {number: [steps[place] for place in sorted(steps)] for number, steps in found.items()}


def fatal_steps(
    trace: Trace, steps: Mapping[int, Sequence[StepRecord]], told: Callable[[int, int], None] = lambda done, of: None
) -> dict[int, FatalStep]:
    """Find the first fatal step of each failed episode of ALFWorld; there are none of other environments.

    Args:
        trace: The evaluation.
        steps: Its steps.
        told: Called before each episode with the number of those that are done, and of all.
    """
    failed = [episode for episode in trace.episodes if not episode.won and episode.judged]
    if not failed or not plays_alfworld(trace.header):
        return {}
    try:
        replay = Replay(trace.header)
    except (RWMLGymError, ImportError) as error:
        return {episode.episode: FatalStep(problem=f"ALFWorld cannot be played here: {error}") for episode in failed}
    found = {}
    for number, episode in enumerate(failed):
        told(number, len(failed))
        own = steps[episode.episode]
        found[episode.episode] = replay.fatal(
            episode.game, [step.action for step in own], [step.next_observation for step in own]
        )
    return found


def describe(
    label: str, trace: Trace, steps: Mapping[int, Sequence[StepRecord]], fatal: Mapping[int, FatalStep]
) -> dict[str, Any]:
    """Return what the page shows of an evaluation beside its steps.

    Args:
        label: Its name on the page.
        trace: The evaluation.
        steps: Its steps.
        fatal: See `fatal_steps`.
    """
    header, episodes = trace.header, trace.episodes
    gap = header.get("gap") or {}
    threshold = gap.get("threshold") if isinstance(gap, dict) else None
    measured = [(s.gap, s.game) for own in steps.values() for s in own if s.gap is not None]
    types = sorted({_type(episode) for episode in episodes})
    games, trials = header.get("games"), header.get("trials") or 1
    return {
        "label": label,
        "facts": facts_of(header, _FACTS),
        "expected": games * trials if isinstance(games, int) and isinstance(trials, int) else None,
        "finished": len(episodes),
        "judged": says_who_won(episodes),
        "threshold": threshold,
        "budget": header.get("max_steps"),
        "failures": {who: sum(e.failed == who for e in episodes) for who in ("agent", "environment")},
        "flawed": sum(bool(episode.known_problem) for episode in episodes),
        "results": _results(episodes) if episodes else None,
        "types": [
            {"name": name or "(no task type)", **_results([e for e in episodes if _type(e) == name])} for name in types
        ],
        "pass": [{"k": k, "value": value} for k, value in pass_hat(episodes).items()],
        "gaps": histogram([gap for gap, _ in measured], [game for _, game in measured], threshold),
        "roles": _gaps_by_role(steps, threshold),
        "episodes": [_line(episode, steps[episode.episode], fatal.get(episode.episode)) for episode in episodes],
    }


def differences(traces: Sequence[tuple[str, Trace]]) -> list[dict[str, Any]]:
    """Return the difference in success of each two evaluations on their common games, with its interval over games.

    Evaluations in another world are left out, and those that do not say who won.
    """
    found = []
    judged = [(label, trace) for label, trace in traces if says_who_won(trace.episodes)]
    for place, (label, own) in enumerate(judged):
        for other_label, other in judged[place + 1 :]:
            pairs = None
            if not world_differences(own, other):
                with contextlib.suppress(InvalidConfigError):  # an older folder may have several seeds of one name
                    pairs = compare(own.episodes, other.episodes)
            if pairs is not None:
                found.append({"a": label, "b": other_label, "games": pairs.games, "value": pairs.difference})
    return found


def facts_of(content: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the named values of a header as texts, then what made it; folders are shortened to their last name."""
    facts = [(name.replace("_", " "), _text(content[name])) for name in names if content.get(name) not in (None, "")]
    arguments = content.get("env_arguments")
    if isinstance(arguments, dict) and arguments:
        facts.append(("arguments", _text({k: v for k, v in arguments.items() if v is not None})))
    if made := content.get("made_with"):
        facts.append(("made with", _text(made)))
    return facts


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    text = str(value)
    return os.path.basename(text.rstrip("/")) if os.path.isabs(text) else text


def _type(episode: EpisodeRecord) -> str:
    return episode.task_type or episode.domain


def _results(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    games = [episode.game for episode in episodes]
    once = len(set(games)) == len(games)
    actions = sum(episode.steps for episode in episodes)
    return {
        "n": len(episodes),
        "games": len(set(games)),
        "won": sum(episode.won for episode in episodes),
        "success": success_interval(episodes),
        "interval": "Wilson" if once else "bootstrap over games",
        "reward": known_interval([episode.reward for episode in episodes], games),
        "steps": known_interval([float(episode.steps) for episode in episodes], games),
        "invalid": sum(episode.invalid for episode in episodes) / actions if actions else None,
        "inefficient": sum(episode.inefficient for episode in episodes) / actions if actions else None,
        "tokens": sum(e.prompt_tokens + e.completion_tokens for e in episodes) / len(episodes),
        "seconds": sum(episode.seconds for episode in episodes),
        "cost": sum(episode.cost for episode in episodes),
    }


def _gaps_by_role(steps: Mapping[int, Sequence[StepRecord]], threshold: float | None) -> list[dict[str, Any]]:
    """Return the histograms of the gaps by message role, where there are several."""
    by_role: dict[str, list[StepRecord]] = defaultdict(list)
    for own in steps.values():
        for step in own:
            if step.gap is not None:
                by_role[step.message_role].append(step)
    if len(by_role) < 2:
        return []
    return [
        {"name": role or "(no role)", "gaps": histogram([s.gap or 0.0 for s in own], [s.game for s in own], threshold)}
        for role, own in sorted(by_role.items())
    ]


def _line(episode: EpisodeRecord, steps: Sequence[StepRecord], fatal: FatalStep | None) -> dict[str, Any]:
    gaps = [step.gap for step in steps if step.gap is not None and math.isfinite(step.gap)]
    line: dict[str, Any] = {
        "number": episode.episode,
        "game": episode.game,
        "trial": episode.trial,
        "type": _type(episode),
        "task": episode.task[:_TASK_CHARACTERS],
        "outcome": "error" if episode.failed else "won" if episode.won else "failed" if episode.judged else "played",
        "reward": episode.reward,
        "steps": len(steps),
        "worst": max(gaps) if gaps else None,
        "ended": episode.ended,
    }
    if fatal is not None:
        line["fatal"] = {"step": fatal.step, "closest": fatal.closest, "problem": fatal.problem}
    if episode.score_parts:
        line["checks"] = [
            {"name": name, "value": value, "counted": name in episode.counted}
            for name, value in episode.score_parts.items()
        ]
    return line


def episode_facts(episode: EpisodeRecord, fatal: FatalStep | None) -> dict[str, Any]:
    """Return what the page shows of an episode beside its steps and its line in the list."""
    facts: dict[str, Any] = {
        "number": episode.episode,
        "task": episode.task,
        "seed": episode.seed,
        "invalid": episode.invalid,
        "inefficient": episode.inefficient,
        "tokens": [episode.prompt_tokens, episode.completion_tokens],
        "seconds": round(episode.seconds, 2),
        "cost": episode.cost,
        "error": episode.error,
        "who": episode.failed,
        "problem": episode.known_problem,
        "version": episode.data_version,
    }
    if fatal is not None and fatal.left:
        facts["left"] = fatal.left
    return {name: value for name, value in facts.items() if value not in (None, "", [0, 0])}
