"""Report of policy training: success with its intervals, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.reports.dark_room import dark_room
from rwml_gym.figures import draw, save
from rwml_gym.files import read_json, write_json
from rwml_gym.statistics import wilson_interval, won_games_interval

__all__ = ["Evaluation", "plot_policy_curves", "write_policy_report"]


@dataclass(frozen=True)
class Evaluation:
    """Success on a set of games.

    Attributes:
        name: `training` or `held-out` games.
        step: Number of updates before the evaluation.
        won: Number of episodes won.
        played: Number of episodes.
        invalid: Share of invalid actions.
        steps: Mean number of steps of an episode.
        reward: Mean sum of the rewards of an episode.
        judged: Whether the environment says which episodes are won (`info["won"]`).
        unit: What is played: `games`, or `episodes` if the environment names no games.
        by_game: How many episodes of each game were won, and how many were played; empty in runs that did not count.
    """

    name: str
    step: int
    won: int
    played: int
    invalid: float
    steps: float
    reward: float = 0.0
    judged: bool = True
    unit: str = "games"
    by_game: list[list[int]] = field(default_factory=list)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the success rate over games, see `statistics.won_games_interval`."""
        if not self.by_game:
            return wilson_interval(self.won, self.played)
        return won_games_interval(*zip(*self.by_game, strict=True))

    def __str__(self) -> str:
        low, high = self.interval
        success = f"success {self.won / self.played:.3f} [{low:.3f}, {high:.3f}]"
        result = success if self.judged else f'reward {self.reward:.3f} (no info["won"])'
        return f"{self.name} {self.unit}: {result} of {self.played}, {self.steps:.1f} steps, {self.invalid:.1%} invalid"


def write_policy_report(folder: Path, config: PolicyConfig, evaluations: Sequence[Evaluation]) -> str:
    """Write `report.txt`, `report.json` and `curves.png` (with matplotlib) into a run's folder; return the text."""
    rows = read_json(folder / "metrics" / "policy.json")
    lines = [f"Success of {config.model}, 95 % intervals over games:"]
    for name in dict.fromkeys(evaluation.name for evaluation in evaluations):
        mine = [evaluation for evaluation in evaluations if evaluation.name == name]
        lines += [f"  after {evaluation.step:>3} updates  {evaluation}" for evaluation in mine]
        first, last = mine[0], mine[-1]
        if not last.judged:
            continue
        share, (low, high) = last.won / last.played, first.interval
        verdict = "inside" if low <= share <= high else "above" if share > high else "below"
        lines.append(f"  the last is {verdict} the 95 % interval of the first")
    if rows:
        play = sum(row["seconds_rollout"] for row in rows)
        update = sum(row["seconds_update"] for row in rows)
        mismatch = max(row["sampling_mismatch"] for row in rows)
        lines.append(
            f"{len(rows)} updates on {sum(row['episodes'] for row in rows)} episodes: {play:.0f} s of rollouts, "
            f"{update:.0f} s of updates. The mean difference of the log-probabilities in sampling and training is at "
            f"most {mismatch:.4f}."
        )
        lines += _channels(config, rows)
    text = "\n".join(lines)
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "report.json", [vars(evaluation) for evaluation in evaluations])
    plot_policy_curves(folder / "curves.png", {"": (rows, evaluations)})
    return text


def _channels(config: PolicyConfig, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines on what the agent was rewarded for, and on what it learnt beside its rewards."""
    stage, (first, last) = config.stage, (rows[: len(rows) // 2 or 1], rows[len(rows) // 2 :])

    def change(name: str) -> str:
        return f"{np.mean([row[name] for row in first]):.3f} to {np.mean([row[name] for row in last]):.3f}"

    lost = sum(row["failed_groups"] for row in rows) / max(sum(row["groups"] for row in rows), 1)
    lines = [f"All episodes were lost in {lost:.0%} of the groups."]
    if config.episode.predictions:
        share = np.mean([row["gap_share"] for row in rows])
        lines.append(
            f"From the first to the second half of the updates: success {change('success')}, gap reward "
            f"{change('gap_reward')}. The gap reward was {share:.0%} of the tokens' squared advantages."
        )
    loss = stage.observation_loss
    if loss.is_on:
        lines.append(
            f"Observation loss ({loss.kind}, weight {loss.weight:g}): {change('observation_loss')}, mean probability "
            f"{change('observation_probability')}."
        )
    for channel, used, placebo in (
        ("gap reward", stage.world_model_weight > 0, stage.gap_placebo),
        ("observation loss", loss.is_on, loss.placebo),
    ):
        if used and placebo == "none":
            lines.append(
                f"Placebo of the {channel}: none in this run. A gain counts beside one, 'shuffled' or 'random'."
            )
        elif used:
            lines.append(f"Placebo: the {channel} of this run was on {placebo} answers. It is the control of another.")
    if warning := dark_room(rows, window=max(4, min(len(rows), 20))):
        lines.append(f"Dark room: {warning}")
    return lines


def plot_policy_curves(
    path: Path, runs: Mapping[str, tuple[Sequence[Mapping[str, Any]], Sequence[Evaluation]]]
) -> None:
    """Draw the learning curves of one run or several with matplotlib.

    Args:
        path: Path of the picture.
        runs: For each label the metrics of the updates and the evaluations.
    """
    figure, (success, length, ratio) = draw(3, width=4.3)
    for number, (label, (rows, evaluations)) in enumerate(runs.items()):
        steps = [row["step"] for row in rows]
        colour = f"C{number}"
        for name in dict.fromkeys(evaluation.name for evaluation in evaluations):
            mine = [evaluation for evaluation in evaluations if evaluation.name == name]
            shares = [evaluation.won / evaluation.played for evaluation in mine]
            bounds = [evaluation.interval for evaluation in mine]
            success.errorbar(
                [evaluation.step + 0.15 * number for evaluation in mine],
                shares,
                yerr=[
                    [share - low for share, (low, _) in zip(shares, bounds, strict=True)],
                    [high - share for share, (_, high) in zip(shares, bounds, strict=True)],
                ],
                label=" ".join(filter(None, (label, f"{name} games"))),
                color=colour,
                ls="-" if name == "training" else "--",
                marker="o",
                capsize=3,
            )
        success.plot(steps, [row["success"] for row in rows], color=colour, lw=0.8, alpha=0.4)
        if any(row.get("gap_reward") for row in rows):
            accuracy = [row["gap_reward"] for row in rows]
            success.plot(steps, accuracy, color=colour, lw=0.8, ls=":", label="gap reward")
        length.plot(steps, [row["steps"] for row in rows], color=colour, label=label or None)
        ratio.plot(steps, [row["sampling_mismatch"] for row in rows], color=colour, label=label or None)
    success.set(title="Success (95 % interval; thin: episodes trained on)", xlabel="updates", ylim=(0, 1))
    length.set(title="Actions in an episode trained on", xlabel="updates")
    length.set_ylim(bottom=0)
    ratio.set(title="|log p| sampling against training", xlabel="updates", ylabel="nats per token")
    ratio.set_ylim(bottom=0)
    for axis in (success, length, ratio):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False)
    save(figure, path)
