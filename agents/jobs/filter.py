"""Which triplets are trained on: by pass rate, by outcome type, and how much a group can learn from them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rwml_gym.agents.config.world_model import FilterConfig
from rwml_gym.agents.jobs.reward import paper_gaps, pass_rates
from rwml_gym.agents.language.world_model import LanguageWorldModel, score_attempts
from rwml_gym.agents.learning.distributed import gathered, share
from rwml_gym.agents.reports.evaluate import outcome_type
from rwml_gym.agents.runs.run import Run
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = ["Triplets", "by_pass_rate", "group_signal", "signal_table"]

_MIN_ROW = 5  # triplets; a rarer outcome type is counted among the others


def by_pass_rate(rates: Sequence[float], config: FilterConfig, seed: int) -> list[int]:
    """Choose triplets by their pass rate: within the window, too-easy ones and hopeless ones with their probability.

    Args:
        rates: Share of right attempts, one a triplet.
        config: The window, what is too easy, and how much of both ends is kept.
        seed: Seed of the draws.

    Returns:
        Indices that are kept, ascending.
    """
    rng = random.Random(seed)
    keep = [config.keep_easy if config.too_easy(r) else config.keep_hard if r == 0 else 1.0 for r in rates]
    kept = [i for i, probability in enumerate(keep) if rng.random() < probability]
    return [i for i in kept if config.min_rate <= rates[i] <= config.max_rate]


def group_signal(rates: Sequence[float], group_size: int) -> np.ndarray:
    """Return the probability that a group's binary rewards differ, (n,): 1 - p^G - (1 - p)^G for pass rates p.

    The rates are of a few attempts, so a triplet that never passed counts as one that never will: a lower bound for it.

    Args:
        rates: n pass rates.
        group_size: G.
    """
    passed = np.asarray(rates, dtype=np.float64)
    return 1 - passed**group_size - (1 - passed) ** group_size


def signal_table(tried: Sequence[Transition], rates: Sequence[float], kept: Sequence[int], group_size: int) -> str:
    """Return, by outcome type, what GRPO can learn from: it learns nothing about what is never sampled.

    Args:
        tried: n triplets.
        rates: Their pass rates.
        kept: Indices of those that are trained on.
        group_size: G.
    """
    types = [outcome_type(transition) for transition in tried]
    counts = Counter(types)
    types = [name if counts[name] >= _MIN_ROW else "other actions" for name in types]
    expected = group_signal(rates, group_size)
    found, chosen = np.asarray(rates, dtype=np.float64), np.isin(np.arange(len(tried)), kept)
    lines = [
        f"{'what was tried':<20}{'n':>6}{'pass rate':>11}{'never':>8}{'always':>8}{'signal':>8}{'kept':>6}",
    ]
    named = np.asarray(types)
    for name in [*dict.fromkeys(name for name, _ in Counter(types).most_common()), "all"]:
        mine = np.ones(len(tried), dtype=bool) if name == "all" else named == name
        lines.append(
            f"  {name[:18]:<18}{mine.sum():>6}{found[mine].mean():>11.2f}{(found[mine] == 0).mean():>8.0%}"
            f"{(found[mine] == 1).mean():>8.0%}{expected[mine].mean():>8.0%}{(mine & chosen).sum():>6}"
        )
    lines.append(f"(signal: expected share of groups of {group_size} whose rewards differ)")
    return "\n".join(lines)


class Triplets:
    """The triplets that GRPO trains on: chosen by attempts of the fine-tuned model, later of the policy as it is.

    Args:
        run: The run, whose folder keeps the pass rates.
        world_model: The model that makes the attempts.
        data: What can be trained on, in random order.
        gap: The reward, whose thresholds the first attempts may yet choose.
        train: The training transitions, see `reward.paper_gaps`.

    Attributes:
        gap: The reward of the training, once the first triplets are chosen.
    """

    def __init__(
        self,
        run: Run,
        world_model: LanguageWorldModel,
        data: TransitionDataset,
        gap: GapReward,
        train: TransitionDataset,
    ) -> None:
        self._run, self._world_model, self._train, self.gap = run, world_model, train, gap
        self._config: FilterConfig = run.config.filter
        self._filtering: GapReward | None = None
        self._tried = data if not self._config.limit else data[: self._config.limit]
        self._chosen: tuple[int, TransitionDataset] | None = None

    def at(self, number: int) -> TransitionDataset:
        """Return those of update `number`, from 0; all processes ask at the same time."""
        every = self._config.refresh_every
        round_ = number // every if every else 0
        if self._chosen is None or self._chosen[0] != round_:
            self._chosen = (round_, self._choose(round_))
        return self._chosen[1]

    def _choose(self, round_: int) -> TransitionDataset:
        run, config, tried = self._run, self._config, self._tried
        name = f"_{round_}" if round_ else ""
        distances = run.once(f"attempts{name}.json", lambda: self._attempt(round_))["distances"]
        if self._filtering is None:
            self._filtering, self.gap, table = paper_gaps(
                run.config, run.world.roles, self.gap, self._train, tried, distances
            )
            if table:
                run.say(table)
        filtering = self._filtering
        seed = run.seed("keep", *((round_,) if round_ else ()))

        def choose() -> dict[str, Any]:
            rates = pass_rates(filtering, tried, distances)
            return {"rates": rates, "kept": by_pass_rate(rates, config, seed)}

        content = run.once(f"filter{name}.json", choose)
        rates, kept = np.array(content["rates"]), content["kept"]
        after = f" after {round_ * config.refresh_every} updates" if round_ else ""
        easy = np.mean([config.too_easy(rate) for rate in rates])
        run.say(
            f"Filter{after}: {len(tried)} triplets tried {config.attempts} times: {easy:.0%} too easy, "
            f"{np.mean(rates == 0):.0%} never right; {len(kept)} kept.\n"
            f"{signal_table(tried, rates.tolist(), kept, run.config.stage.group_size)}"
        )
        if not kept:
            raise InvalidConfigError(
                "Expected triplets to train on, actual: the filter kept none. Try more (--filter.limit), raise "
                "--filter.keep-hard, or widen the window of --filter.min-rate and --filter.max-rate."
            )
        return run.keep(f"kept{name}", TransitionDataset(tried[i] for i in kept))

    def _attempt(self, round_: int) -> dict[str, Any]:
        run = self._run
        places = share(run.accelerator, range(len(self._tried)))
        own = [self._tried[i] for i in places]
        seed = run.seed("filter", *((round_,) if round_ else ()))
        with run.progress("filter", len(own), "transition") as bar:
            attempts = self._world_model.attempts(
                own, self._config.attempts, seed=seed, progress=bar.update, places=places
            )
        found = score_attempts(run.prompts, own, attempts, self.gap).distances.tolist() if own else []
        return {"distances": gathered(run.accelerator, found)}
