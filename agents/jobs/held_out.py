"""What stage 1 shows of held-out games: predictions, their scores, what was forgotten, and the words around a table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rwml_gym.agents.jobs.data import as_played, some_of
from rwml_gym.agents.jobs.reference import reference_scores, success
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.learning.distributed import gathered, share
from rwml_gym.agents.learning.forgetting import Forgetting, Probe, forgetting, make_probe
from rwml_gym.agents.reports.evaluate import Prediction, evaluate_predictions
from rwml_gym.agents.reports.world_model import Context
from rwml_gym.agents.runs.run import Run
from rwml_gym.files import read_json
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import TransitionDataset
from rwml_gym.world_models.base import WorldModel

__all__ = ["keep_best", "make_context", "mean_reward", "predict_held_out", "score_held_out"]


def predict_held_out(
    run: Run,
    world_model: LanguageWorldModel,
    held_out: TransitionDataset,
    forgot: dict[str, Forgetting],
    name: str,
    other: WorldModel | None = None,
) -> list[str]:
    """Predict the held-out transitions with the language model and its adapter as it is, or another world model.

    What the language model has forgotten is measured, too.
    """

    def predict() -> list[str]:
        own = share(run.accelerator, list(held_out))
        with run.progress(f"evaluate {name}", len(own), "transition") as bar:
            if other is None:
                attempts = world_model.attempts(own, 1, temperature=0.0, progress=bar.update)
                predictions = [run.prompts.read_prediction(c.text) for (c,) in attempts]
            else:
                histories, actions = [t.history for t in own], [t.action for t in own]
                predictions = other.predict(histories, actions, [t.task for t in own])
                bar.update(len(own))
        return gathered(run.accelerator, predictions)

    predictions = list(run.once(f"predictions/{_slug(name)}.json", predict))
    if other is None and run.config.forgetting:
        forgot[name] = _forgetting(run, held_out, name)
    return predictions


def score_held_out(
    run: Run, held_out: TransitionDataset, gap: GapReward, name: str, predictions: Sequence[str]
) -> list[Prediction]:
    """Score predictions of the held-out transitions."""

    def scores() -> list[dict[str, Any]]:
        own = share(run.accelerator, list(zip(held_out, as_played(run, held_out), predictions, strict=True)))
        shown, played, predicted = ([row[column] for row in own] for column in range(3))
        return gathered(run.accelerator, [p.to_json() for p in evaluate_predictions(shown, predicted, gap, played)])

    result = [Prediction(**row) for row in run.once(f"evaluation/{_slug(name)}.json", scores)]
    run.say(f"{name}: held-out reward at τ_d {mean_reward(result):.3f}")
    return result


def keep_best(run: Run, name: str, before: Sequence[str] = ()) -> None:
    """Keep the best adapter of a training as `NAME best`, so that it can be evaluated elsewhere.

    The choice is among its evaluations in between and at the end, by the reward on the held-out games. So the reward
    there favours the training: a fair comparison with others needs other games.

    Args:
        run: The run.
        name: The training, all of whose evaluations are done.
        before: Models that it began with, which count, too.
    """
    folder, slug = run.folder / "evaluation", _slug(name)
    between = sorted(folder.glob(f"{slug}_step_*.json"), key=lambda path: int(path.stem.rpartition("_")[2]))
    candidates = [*map(_slug, before), *(path.stem for path in between), slug]
    rewards = {
        each: float(np.mean([row["reward"] for row in read_json(folder / f"{each}.json")])) for each in candidates
    }
    best = max(candidates, key=lambda each: rewards[each])
    run.say(f"{name}: the best of {len(candidates)} evaluations is {best}, {rewards[best]:.3f} on the held-out games")
    if run.is_main:
        for each in (slug, best):  # the first has what its prompts hold
            shutil.copytree(run.adapter(each), run.adapter(f"{name} best"), dirs_exist_ok=True)
    run.accelerator.wait_for_everyone()


def _forgetting(run: Run, held_out: TransitionDataset, name: str) -> Forgetting:
    """Measure how far the model with its adapter as it is has moved from the base model."""
    count = run.config.forgetting
    chosen = some_of(held_out, count, run.seed("forgetting"))
    prompts = [run.prompts.ask(t) for t in chosen]

    def ask() -> dict[str, Any]:
        stop = run.prompts.prediction_stop
        return vars(make_probe(run.model, run.tokenizer, prompts, count, stop, run.config.max_new_tokens))

    probe = Probe(**run.once("forgetting/probe.json", ask))
    found = run.once(f"forgetting/{_slug(name)}.json", lambda: vars(forgetting(run.model, probe)))
    return Forgetting(**found)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")


def make_context(
    run: Run, played: TransitionDataset, held_out: TransitionDataset, forgot: Mapping[str, Forgetting]
) -> Context:
    """Collect what the table says beside its numbers; `held_out` is the predicted part of `played`."""
    config, length = run.config, run.config.max_new_tokens
    fits = {
        role: float(np.mean([len(run.prompts.target(t.next_state)) <= length for t in held_out if t.role == role]))
        for role in sorted({t.role for t in held_out})
    }
    version = ", ".join(sorted({t.data_version for t in held_out} - {""}))
    if not run.world.reference:
        return Context(version, fits, length, forgetting=forgot)

    def score() -> dict[str, Any]:
        split = run.source.held_out_split or config.split
        scores = {name: success(episodes) for name, episodes in reference_scores(config, split).items()}
        won = {t.episode: bool(t.won) for t in played}
        player = f"{sum(won.values())}/{len(won)} ({sum(won.values()) / len(won):.1%})"
        return {"split": split, "scores": scores, "player": player, "data_version": version}

    found = run.once("task_scores.json", score)
    scores = ", ".join(f"{name} {value}" for name, value in found["scores"].items())
    return Context(
        version,
        fits,
        length,
        f"Tasks won, {run.world.title} {found['split']} ({found['data_version']}): {scores}, whoever played the "
        f"held-out games here {found['player']}",
        forgot,
    )


def mean_reward(predictions: Sequence[Prediction]) -> float:
    """Return the mean reward of predictions."""
    return float(np.mean([p.reward for p in predictions]))
