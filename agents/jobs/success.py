"""How often a policy succeeds: its agent, the environment it plays, and its evaluations in a run of policy training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.jobs.channels import measures
from rwml_gym.agents.learning.distributed import share, total
from rwml_gym.agents.players.base import MakeEnv
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, roll_out
from rwml_gym.agents.reports.policy import Evaluation
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import GameName, GameSet
from rwml_gym.text import printable
from rwml_gym.wrappers import WorldModelRewardWrapper

__all__ = ["evaluate_policy", "policy_agent", "predicting"]


def predicting(run: Run, make_env: MakeEnv) -> MakeEnv:
    """Wrap the environment so that predictions are taken out of the agent's actions."""
    return partial(_wrapped, make_env, run.config, run.world.roles) if run.config.episode.predictions else make_env


def _wrapped(make_env: MakeEnv, config: PolicyConfig, roles: bool) -> gym.Env[str, str]:
    stage = config.stage
    return WorldModelRewardWrapper(
        make_env(), stage.encoder, stage.threshold, mode="report", measures=measures(config.stage, roles)
    )


def policy_agent(run: Run, temperature: float) -> LanguageModelAgent:
    """Return the policy as it plays."""
    episode = run.config.episode
    return LanguageModelAgent(
        run.model,
        run.tokenizer,
        run.prompts,
        temperature,
        seed=run.seed("agent"),
        action_tokens=run.config.turn_tokens,
        show_policy=episode.show_policy,
        decoding=episode.decoding,
    )


def evaluate_policy(run: Run, number: int) -> list[dict[str, Any]]:
    """Return the evaluations after so many updates; a run that was killed, or forked, has them already."""
    return list(run.once(f"evaluations/{number}.json", lambda: [vars(found) for found in _evaluate(run, number)]))


def _evaluate(run: Run, number: int) -> list[Evaluation]:
    """Play the games that success is measured on, with the policy as it is; several processes share them."""
    evaluation = run.config.evaluation
    agent = policy_agent(run, evaluation.temperature)
    results = []
    sets = dict(run.games.sets)
    if evaluation.training_games:
        steps = evaluation.max_steps or run.config.episode.max_steps
        training = GameSet(partial(run.games.make_env, max_episode_steps=steps), run.games.train)
        sets = {"training": training, **sets}
    for name, games in sets.items():
        # The same seeds every time: a difference between two evaluations is one of the policy.
        specs = [
            EpisodeSpec(game, run.seed("evaluate", place, repeat))
            for place, game in enumerate(games.games)
            for repeat in range(evaluation.repeats)
        ]
        if not specs:
            continue
        own = share(run.accelerator, specs)
        with run.progress(f"evaluate {name}", len(own), "episode", leave=False) as bar:
            slots = run.config.episode.slots
            played = roll_out(predicting(run, games.make_env), agent, own, slots, progress=bar.update)
        sums = [
            len(played),
            sum(episode.won for episode in played),
            sum(sum(episode.invalid) for episode in played),
            sum(episode.steps for episode in played),
            sum(episode.reward for episode in played),
            sum(episode.judged for episode in played),
        ]
        episodes, won, invalid, steps, reward, known, *by_game = total(
            run.accelerator, [*sums, *_by_game(games.games, played)]
        )
        found = Evaluation(
            name,
            number,
            int(won),
            int(episodes),
            invalid / max(steps, 1),
            steps / episodes,
            reward / episodes,
            known > 0,
            "games" if isinstance(games.games[0], str) else "episodes",
            [[int(won), int(count)] for won, count in zip(by_game[::2], by_game[1::2], strict=True)],
        )
        if run.is_main:
            tqdm.write(printable(f"  after {number} updates, {found}"))
        results.append(found)
    return results


def _by_game(games: Sequence[GameName], played: Sequence[Episode]) -> list[int]:
    """Return how many episodes were won and played, game by game."""
    found = {game: [0, 0] for game in games}
    for episode in played:
        found[episode.spec.game][0] += episode.won
        found[episode.spec.game][1] += 1
    return [number for counts in found.values() for number in counts]
