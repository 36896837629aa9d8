"""`rwml-gym evaluate`, `compare`, `replay` and `baselines`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.errors import InvalidConfigError
from rwml_gym.terminal import say
from rwml_gym.text import finite

__all__ = ["baselines_tau2", "compare", "evaluate", "replay"]


def evaluate(words: list[str]) -> int:
    """Run `rwml-gym evaluate` with the words after it."""

    def parse(
        config: tyro.conf.OmitArgPrefixes[EvaluateConfig],
        run_dir: Path | None = None,
        json: bool = False,
        row: bool = False,
    ) -> tuple[EvaluateConfig, Path | None, bool, bool]:
        """Play an agent on a split and say how often it succeeds, with a 95 % interval.

        Args:
            config: Who plays what.
            run_dir: Folder for steps.jsonl and episodes.jsonl, written as it happens. The same command goes on there.
            json: Print the scores as JSON.
            row: Print one line of a Markdown table.
        """
        return config, run_dir, json, row

    config, folder, as_json, as_row = tyro.cli(parse, args=words, prog="rwml-gym evaluate")
    if as_json and as_row:
        raise InvalidConfigError("Expected --json or --row, actual: both. Leave out one of them.")
    config.check_used()
    from rwml_gym.agents.evaluation import table
    from rwml_gym.agents.evaluation.progress import Progress
    from rwml_gym.agents.evaluation.run import Evaluation
    from rwml_gym.agents.evaluation.run import evaluate as run
    from rwml_gym.agents.players.endpoint import BudgetSpentError

    if config.loads_model:
        from rwml_gym.agents.precision import choose_precision  # imports torch, which other agents do without

        say(choose_precision(config.dtype), sys.stderr)  # the table alone goes to the standard output
    if folder is None:
        say("Steps and episodes are not kept: --run-dir RUN writes them as they happen.", sys.stderr)

    def show(found: Evaluation) -> None:
        if as_json:
            _say_json(table.table_json(found.header, found.episodes))
        else:
            say((table.row_line if as_row else table.table_text)(found.header, found.episodes))

    progress = Progress()
    try:
        found = run(config, folder, [progress], progress.begin)
    except (KeyboardInterrupt, BudgetSpentError):
        progress.close()
        if (sofar := progress.so_far) is not None:
            show(sofar)
        raise
    progress.close()
    show(found)
    return 0


def compare(words: list[str]) -> int:
    """Run `rwml-gym compare` with the words after it."""

    def parse(
        first: tyro.conf.Positional[Path],
        second: tyro.conf.Positional[Path],
        effect: float = 0.05,
        json: bool = False,
    ) -> tuple[Path, Path, float, bool]:
        """Compare two evaluations of the same games, paired by game and trial.

        Args:
            first: Folder of an evaluation.
            second: Folder of another one.
            effect: The difference in success that is to be seen with a power of 80 %.
            json: Print the result as JSON.
        """
        return first, second, effect, json

    first, second, effect, as_json = tyro.cli(parse, args=words, prog="rwml-gym compare")
    from rwml_gym.agents.evaluation import table
    from rwml_gym.agents.traces import scores
    from rwml_gym.agents.traces.folder import read_trace
    from rwml_gym.agents.traces.worlds import world_differences

    if not 0 < effect <= 1:
        raise InvalidConfigError(f"Expected an effect above 0 and at most 1, actual: {effect}.")
    ours, others = read_trace(first), read_trace(second)
    different = world_differences(ours, others)
    found = None if different else scores.compare(ours.episodes, others.episodes, effect)
    if found is None:
        raise InvalidConfigError(
            f"Expected two evaluations of the same games, actual: {', '.join(different) or 'no game in common'}. Play "
            f"the panel of the first one with the same options: rwml-gym evaluate --panel {first / 'panel.json'}"
        )
    if as_json:
        _say_json(found.to_json())
    else:
        say(table.comparison_text(str(first), str(second), found))
    return 0


def replay(words: list[str]) -> int:
    """Run `rwml-gym replay` with the words after it; the status is 1 if the world answers otherwise."""

    def parse(trace: tyro.conf.Positional[Path]) -> Path:
        """Play the actions of an evaluation again in the real engine, and say where the world answers otherwise.

        Args:
            trace: Folder of the evaluation.
        """
        return trace

    folder = tyro.cli(parse, args=words, prog="rwml-gym replay")
    from rwml_gym.agents.evaluation.replay import replay as play_again
    from rwml_gym.agents.traces.folder import read_trace

    found = play_again(read_trace(folder))
    for d in found.deviations:
        say(f"{d.game}, trial {d.trial}, step {d.step}: another {d.what}.")
        say(f"  recorded: {d.recorded}\n  replayed: {d.replayed}")
    say(f"{found.episodes} episodes, {found.steps} steps played again; {len(found.deviations)} episodes differ.")
    return 1 if found.deviations else 0


def _say_json(content: Mapping[str, Any]) -> None:
    say(json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False))


def baselines_tau2(words: list[str]) -> None:
    """Run `rwml-gym baselines tau2` with the words after it."""

    def parse(domain: str = "retail", split: str = "base") -> tuple[str, str]:
        """How many tasks of τ²-bench are won without serving anyone.

        Args:
            domain: airline, retail, telecom, telecom-workflow or mock.
            split: Split of the domain, such as base (what publications score on), train or test.
        """
        return domain, split

    domain, split = tyro.cli(parse, args=words, prog="rwml-gym baselines tau2")
    from rwml_gym.agents.jobs.reference import reference_scores, success

    scores = reference_scores(EnvConfig("tau2", domain=domain, split=split))
    say(f"Tasks won, {domain} {split} ({scores['no-op'][0].data_version}):")
    say(f"  goodbye at once   {success(scores['no-op'])}")
    say(f"  transfer at once  {success(scores['transfer'])}")
