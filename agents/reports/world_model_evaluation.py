"""Report of an evaluation of world models: one step, several steps ahead, and what was played inside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rwml_gym.agents.reports.evaluate import Prediction
from rwml_gym.agents.reports.world_model import Context, results_table
from rwml_gym.reward.distances import LARGEST_GAP
from rwml_gym.reward.gap import GapReward
from rwml_gym.statistics import share_interval, wilson_interval

__all__ = ["Recognition", "StepAhead", "Successes", "WorldModelEvaluation"]

_WIDTH = 24


@dataclass(frozen=True)
class StepAhead:
    """A scored prediction of a later state.

    Attributes:
        game: Game of the episode; intervals resample games.
        step: Number of the step, from 1, which is an ordinary prediction.
        reward: Its reward.
        distance: Its gap.
    """

    game: str
    step: int
    reward: float
    distance: float


@dataclass(frozen=True)
class Successes:
    """Success in each game, in the same order.

    Attributes:
        games: Names of the games.
        imagined: Whether the agent succeeded inside the model, as it was recognised.
        real: Whether the same agent succeeded in the real game.
        replayed: Whether the actions of the imagined episode succeeded in the real game.
        real_steps: Number of actions of the real episodes.
        invalid: Share of the replayed actions that the real game rejected.
    """

    games: tuple[str, ...]
    imagined: tuple[bool, ...]
    real: tuple[bool, ...]
    replayed: tuple[bool, ...]
    real_steps: tuple[int, ...]
    invalid: float


@dataclass(frozen=True)
class Recognition:
    """How often success was recognised right, on recorded episodes of the real game.

    Attributes:
        won: Number of episodes that were won.
        recognised: How many of these were recognised.
        lost: Number of episodes that were not won.
        mistaken: How many of these were taken for won.
    """

    won: int
    recognised: int
    lost: int
    mistaken: int


@dataclass(frozen=True)
class WorldModelEvaluation:
    """The results of an evaluation, by the name of the model.

    Attributes:
        one_step: Scored predictions of the same held-out transitions.
        ahead: Scored predictions of later states; empty if none were asked for.
        inside: Successes inside and outside of each model; empty if nothing was played there.
        recognition: How often success is recognised right, on real episodes; `None` if nothing was played.
        learnt_from: Number of transitions that models learnt from which look up what they have seen.
        data_version: Version of the data of the held-out games.
        player: Who played inside the models.
        left_out: Why a part is missing, in words; empty if none is.
    """

    one_step: Mapping[str, Sequence[Prediction]]
    ahead: Mapping[str, Sequence[StepAhead]] = field(default_factory=dict)
    inside: Mapping[str, Successes] = field(default_factory=dict)
    recognition: Recognition | None = None
    learnt_from: int = 0
    data_version: str = ""
    player: str = ""
    left_out: str = ""

    def text(self, gap: GapReward, max_new_tokens: int) -> str:
        """Return the report to read.

        Args:
            gap: The reward of the predictions.
            max_new_tokens: Token limit of a language model's prediction.
        """
        parts = [
            "ONE STEP",
            f"Models that look up what they have seen learnt from {self.learnt_from} transitions of other games.",
            results_table(self.one_step, gap, Context(self.data_version, {}, max_new_tokens)),
        ]
        if self.ahead:
            parts += ["", *self._ahead_lines()]
        if self.inside:
            parts += ["", *self._inside_lines()]
        if self.left_out:
            parts += ["", self.left_out]
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain data, with the intervals of the tables."""
        return {
            "one_step": {
                name: share_interval([p.reward for p in rows], [p.game for p in rows])
                for name, rows in self.one_step.items()
            },
            "ahead": {
                name: [
                    {
                        "step": step,
                        "starts": len(chosen),
                        "reward": share_interval([r.reward for r in chosen], [r.game for r in chosen]),
                        "gap": share_interval([r.distance for r in chosen], [r.game for r in chosen], LARGEST_GAP),
                    }
                    for step, chosen in _by_step(rows).items()
                ]
                for name, rows in self.ahead.items()
            },
            "inside": {name: asdict(found) for name, found in self.inside.items()},
            "recognition": None if self.recognition is None else asdict(self.recognition),
            "learnt_from": self.learnt_from,
            "data_version": self.data_version,
            "player": self.player,
            "left_out": self.left_out,
        }

    def _ahead_lines(self) -> list[str]:
        names = list(self.ahead)
        by_step = {name: _by_step(rows) for name, rows in self.ahead.items()}
        first = next(iter(self.ahead.values()))
        steps = _by_step(first)
        lines = [
            "SEVERAL STEPS AHEAD",
            f"The real actions are played from {len(steps[1])} places of {len({r.game for r in first})} games; each "
            "state is the model's own prediction. [95 % interval, bootstrap over games]",
        ]
        for label, value, most in (("reward at τ_d", "reward", 1.0), ("mean gap", "distance", LARGEST_GAP)):
            lines += ["", f"{label:<16}" + "".join(f"{name:<{_WIDTH}}" for name in names)]
            for step in steps:
                cells = [
                    share_interval([getattr(r, value) for r in chosen], [r.game for r in chosen], most)
                    for chosen in (by_step[name][step] for name in names)
                ]
                shown = "".join(f"{f'{mean:.3f} [{low:.2f}, {high:.2f}]':<{_WIDTH}}" for mean, low, high in cells)
                lines.append(f"  step {step:<9}{shown}".rstrip())
        return lines

    def _inside_lines(self) -> list[str]:
        first = next(iter(self.inside.values()))
        count = len(first.games)
        lines = [
            "THE MODEL AS AN ENVIRONMENT",
            f"{self.player} plays {count} games inside each model, the same games outside, and its imagined actions "
            "again outside. [95 % interval, Wilson]",
            "",
            f"  {'success':<20}{'imagined':<22}{'real':<22}{'replayed':<22}{'only imagined':<16}rejected outside",
        ]
        for name, found in self.inside.items():
            only = sum(a and not b for a, b in zip(found.imagined, found.replayed, strict=True))
            shares = [_share(sum(won), count) for won in (found.imagined, found.real, found.replayed)]
            cells = "".join(f"{share:<22}" for share in shares)
            lines.append(f"  {name:<20}{cells}{f'{only}/{count}':<16}{found.invalid:.1%} of the actions")
        known = self.recognition
        if known is not None:
            lines += [
                "",
                "Success inside a model is recognised in its words. On real episodes, recorded and the expert's, this "
                f"is right for {known.recognised} of {known.won} won and wrong for {known.mistaken} of {known.lost} "
                "lost ones.",
            ]
            if not known.won:
                lines.append(
                    "None of these episodes was won, so nobody knows whether success would be recognised: record with "
                    "an agent that wins some games."
                )
        return lines


def _by_step(rows: Sequence[StepAhead]) -> dict[int, list[StepAhead]]:
    found: dict[int, list[StepAhead]] = {}
    for row in rows:
        found.setdefault(row.step, []).append(row)
    return found


def _share(won: int, count: int) -> str:
    low, high = wilson_interval(won, count)
    return f"{won / count:.2f} [{low:.2f}, {high:.2f}]"
