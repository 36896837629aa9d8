"""`rwml-gym evaluate-world-model`: one step, several steps ahead, and the model as an environment."""

from __future__ import annotations

import sys

import tyro

from rwml_gym.agents.config.evaluate_world_model import EvaluateWorldModelConfig
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import write_json, write_text
from rwml_gym.terminal import say

__all__ = ["evaluate_world_model"]


def evaluate_world_model(words: list[str]) -> None:
    """Run `rwml-gym evaluate-world-model` with the words after it."""
    config = tyro.cli(EvaluateWorldModelConfig, args=words, prog="rwml-gym evaluate-world-model")
    if config.out is not None and config.out.exists() and not config.out.is_dir():
        raise InvalidConfigError(f"Expected --out to be a folder, actual: the file {str(config.out)!r}.")
    if config.out is not None and (config.out / "config.json").exists():
        raise InvalidConfigError(
            f"Expected --out without a training, whose report this would replace, actual: {str(config.out)!r}. Choose "
            "another folder, such as one inside it."
        )
    from rwml_gym.agents.jobs.world_models import evaluate as job
    from rwml_gym.agents.runs.worlds import Source

    gap = job.make_gap(config, Source(config).world.roles)
    # The report alone goes to the standard output.
    found = job.evaluate_world_models(config, gap, lambda text: say(text, sys.stderr))
    report = found.text(gap, job.as_trained(config).max_new_tokens)
    say(report)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        write_text(config.out / "report.txt", report + "\n")
        write_json(config.out / "results.json", found.to_json())
        say(f"\nWritten: {config.out / 'report.txt'}, {config.out / 'results.json'}")
