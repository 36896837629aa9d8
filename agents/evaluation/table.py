"""The table of an evaluation: its head, which says who played what, its rows, and the floor beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from json import loads
from typing import Any

from rwml_gym.agents.traces.records import EpisodeRecord
from rwml_gym.agents.traces.scores import Difference, Scores, groups_of, says_who_won, score
from rwml_gym.statistics import wilson_interval

__all__ = ["comparison_text", "floor_of", "row_line", "table_json", "table_text"]

_WIDTH = 34


def table_text(header: Mapping[str, Any], episodes: Sequence[EpisodeRecord]) -> str:
    """Return the table as text.

    Args:
        header: What `run.json` holds.
        episodes: At least one episode.
    """
    expected = header["games"] * header["trials"]
    state = "" if len(episodes) == expected else f" of {expected}, unfinished"
    lines = [*_head(header, episodes), "", f"{len(episodes)} episodes{state}. [95 % interval]", ""]
    lines.append(f"{'':<{_WIDTH}} {'n':>5}  {'success':<22} {'steps':>6} {'invalid':>8} {'inefficient':>12}")
    groups = {name: score(chosen) for name, chosen in groups_of(episodes).items()}
    for name, found in groups.items():
        lines.append(
            f"{name:<{_WIDTH}} {found.episodes:>5}  {_interval(found.success):<22} {found.steps:>6.1f} "
            f"{found.invalid:>8.1%} {found.inefficient:>12.1%}"
        )
    lines += _below(groups["all"], episodes)
    if floor := floor_of(header):
        lines += ["", "Beside it, on all games of this split (benchmarks/floors.py):"]
        lines += [
            f"  {name:<{_WIDTH - 2}} {played:>5}  {_interval((won / played, *wilson_interval(won, played)))}"
            for name, (won, played) in floor.items()
        ]
    return "\n".join(lines)


def table_json(header: Mapping[str, Any], episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Return the same for JSON: the header, the scores by row, and the floor."""
    rows = {name: score(chosen).to_json() for name, chosen in groups_of(episodes).items()}
    return {**header, "data_version": _data(episodes), "scores": rows, "floor": floor_of(header)}


def row_line(header: Mapping[str, Any], episodes: Sequence[EpisodeRecord]) -> str:
    """Return one line of a Markdown table, with what a reader needs to play the same."""
    found, expected = score(episodes), header["games"] * header["trials"]
    state = "" if len(episodes) == expected else f", {len(episodes)} of {expected} episodes"
    cells = [
        _who(header),
        _where(header),
        f"{header['games']} x {header['trials']}{state}",
        f"`{header['panel']}`",
        _interval(found.success),
        *([f"pass^{k} {_interval(value)}" for k, value in list(found.pass_hat.items())[-1:]]),
        f"{found.steps:.1f} steps",
        f"{found.invalid:.1%} invalid",
        _data(episodes),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def comparison_text(first: str, second: str, found: Difference) -> str:
    """Return the comparison of two evaluations as text."""
    verdict = "These episodes do not tell which is better"
    if found.significant:
        verdict = f"{second if found.difference[0] > 0 else first} is better"
    return "\n".join(
        [
            f"{found.pairs} episodes of {found.games} games that both played, paired by game and trial.",
            f"  {first:<{_WIDTH}} {found.success[0]:.3f}",
            f"  {second:<{_WIDTH}} {found.success[1]:.3f}",
            f"  {'difference':<{_WIDTH}} {_interval(found.difference, '+')}  [95 % interval over games]",
            f"{verdict} (exact sign test over games: p = {found.p:.3g}).",
            *_games(f"Only {first} won", found.only_first),
            *_games(f"Only {second} won", found.only_second),
            f"To see a difference of {found.effect:g} (power 80 %) it would take {found.needed:,} games.",
        ]
    )


def floor_of(header: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return how many games of the split agents win that need no model, and of how many; empty if nobody measured it.

    The table `floors.json` is written by `benchmarks/floors.py`.
    """
    table = loads(files("rwml_gym.agents.evaluation").joinpath("floors.json").read_text(encoding="utf-8"))
    key = " ".join(str(header.get(name)) for name in ("env", "split", "domain") if header.get(name))
    user = header.get("user")
    known = table.get(key, {}) if user in (None, "scripted") else {}
    return {name: (won, played) for name, (won, played) in known.items()}


def _head(header: Mapping[str, Any], episodes: Sequence[EpisodeRecord]) -> list[str]:
    made = header.get("made_with", {})
    versions = ", ".join(f"{name} {number}" for name, number in made.get("versions", {}).items())
    lines = [
        ("agent", _who(header)),
        ("environment", _where(header)),
        ("panel", f"{header['panel']}: {header['games']} games, trials {header['trials']}, seed {header['seed']}"),
        ("budget", f"{header.get('max_steps') or 'no'} steps an episode"),
        ("data", _data(episodes) or "no version"),
        ("made with", versions + (f", commit {made['commit']}" if made.get("commit") else "")),
    ]
    return [f"{name:<12} {value}" for name, value in lines]


def _below(found: Scores, episodes: Sequence[EpisodeRecord]) -> list[str]:
    lines = []
    if found.pass_hat:
        lines += ["", *(f"pass^{k:<{_WIDTH}} {_interval(value)}" for k, value in found.pass_hat.items())]
    if found.parts:
        each = ", ".join(f"{name} {right}/{counted}" for name, (counted, right) in sorted(found.parts.items()))
        lines += ["", f"checks of the score that were passed, of those that count: {each}"]
    if found.failed:
        first = next(e for e in episodes if e.error is not None)
        lines += [
            "",
            f"{found.failed} episodes were ended by a failure, which counts as lost. The first, of the {first.failed}, "
            f"in {first.game}: {first.error}",
        ]
    if flawed := sum(bool(e.known_problem) for e in episodes):
        lines += ["", f'{flawed} of {len(episodes)} tasks have wrong data: info["known_problem"] says what is wrong.']
    if not says_who_won(episodes):
        lines += ["", 'The environment gives no info["won"], so nothing counts as won; its mean reward is shown below.']
        lines.append(f"mean reward of an episode: {found.reward:.3f}")
    usage = [f"{found.seconds:.2f} s an episode"]
    if found.tokens:
        usage.append(f"{found.tokens:,.0f} tokens an episode")
    if found.cost:
        each = "no episode was won" if found.cost_per_win is None else f"{found.cost_per_win:.4f} for each won episode"
        usage.append(f"{found.cost:.4f} US dollars in all, {each}")
    return [*lines, "", ", ".join(usage)]


def _who(header: Mapping[str, Any]) -> str:
    adapter = f" with {header['adapter']}" if header.get("adapter") else ""
    model, options = header.get("model"), header.get("prompts", {})
    who = str(header["agent"])
    if imagine := options.get("imagine"):
        steps = options["imagine_steps"]
        who += f" {steps} step{'s' if steps > 1 else ''} with {imagine}"
    if options.get("samples"):
        return f"{who} of {options['samples']} actions of {model}{adapter}"
    return f"{who} {model}{adapter}" if model and who == "model" else who


def _where(header: Mapping[str, Any]) -> str:
    user = f"user {header['user']}" if header.get("user") else ""
    return " ".join(filter(None, (header["env"], header.get("domain"), header.get("split"), user)))


def _data(episodes: Sequence[EpisodeRecord]) -> str:
    return ", ".join(sorted({e.data_version for e in episodes} - {""}))


def _interval(values: tuple[float, float, float], sign: str = "") -> str:
    middle, low, high = values
    return f"{middle:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _games(title: str, games: Sequence[tuple[str, int]]) -> list[str]:
    if not games:
        return [f"{title}: none."]
    shown = [f"  {game} (trial {trial})" for game, trial in games[:20]]
    more = [f"  and {len(games) - 20} more"] if len(games) > 20 else []
    return [f"{title}: {len(games)}.", *shown, *more]
