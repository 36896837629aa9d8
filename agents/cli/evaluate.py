"""`rwml-gym evaluate` and `rwml-gym baselines`."""

from __future__ import annotations

import sys

import tyro

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.terminal import say

__all__ = ["baselines_tau2", "evaluate"]


def evaluate(words: list[str]) -> None:
    """Run `rwml-gym evaluate` with the words after it."""
    config = tyro.cli(EvaluateConfig, args=words, prog="rwml-gym evaluate")
    from rwml_gym.agents.jobs import evaluate as job

    if config.agent == "model":
        from rwml_gym.agents.precision import choose_precision  # imports torch, which other agents do without

        say(choose_precision(config.dtype), sys.stderr)  # the table alone goes to the standard output
    finished: list[job.Episode] = []
    try:
        say(job.success_table(job.evaluate(config, finished.append)))
    except KeyboardInterrupt:
        if finished:
            say(f"Interrupted: the episodes that were played to their end.\n{job.success_table(finished)}")
        raise


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
    from rwml_gym.agents.jobs.evaluate import reference_scores, success

    scores = reference_scores(EnvConfig("tau2", domain=domain, split=split))
    say(f"Tasks won, {domain} {split} ({scores['no-op'][0].data_version}):")
    say(f"  goodbye at once   {success(scores['no-op'])}")
    say(f"  transfer at once  {success(scores['transfer'])}")
