"""Folders of evaluations for tests: played on real games, or made up in any size, with harmless or hostile texts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rwml_gym.agents.players.base import Agent
from rwml_gym.agents.traces.folder import TraceWriter
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord

HOSTILE = (
    "<script>window.hurt = 1</script>",
    "</script><script>window.hurt = 2</script>",
    '<img src="x" onerror="window.hurt = 3">',
    "<!--<script>",
    "{{data}} {{script}} </style>",
    "a lone surrogate \ud800 here",
    "right to left \u202egnp.exe\u202c and \u2067isolated",
    "nul \x00 escape \x1b[2J bell \x07",
    "line\u2028separator and \u200bzero width",
    "emoji 🧪 and עברית",
)

_THINGS = ("mug 1", "plate 2", "apple 1", "book 3", "pen 2", "pillow 1", "soapbar 1", "egg 2")
_PLACES = ("fridge 1", "countertop 2", "drawer 4", "shelf 3", "desk 1", "cabinet 7", "sinkbasin 1")
_KINDS = "mug plate apple book pen pillow soapbar egg knife fork cup vase statue box candle towel watch lamp".split()
TYPES = ("pick_and_place_simple", "pick_heat_then_place_in_recep", "look_at_obj_in_light")


def header(**changes: Any) -> dict[str, Any]:
    """The header of a small evaluation."""
    return {
        "agent": "model",
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "env": "toy",
        "split": "test",
        "domain": None,
        "user": None,
        "games": 6,
        "trials": 1,
        "panel": "sha256:0123456789abcdef",
        "max_steps": 30,
        "seed": 0,
        "env_arguments": {},
        "gap": {"name": "cosine", "threshold": 0.02},
        "made_with": {"rwml-gym": "0.1.0", "torch": "2.9.0", "commit": "a37f947"},
        **changes,
    }


def make_trace(
    folder: Path,
    games: int = 6,
    steps: int = 5,
    seed: int = 0,
    trials: int = 1,
    finished: int | None = None,
    texts: Sequence[str] = (),
    prompt_lines: int = 0,
    win_rate: float = 0.4,
    **changes: Any,
) -> Path:
    """Write an evaluation that nobody played; `texts` are put into every kind of text in turn."""
    rng = random.Random(seed)
    writer = TraceWriter(folder, header(games=games, trials=trials, **changes))
    for number in range(games * trials if finished is None else finished):
        place, trial = number % games, number // games
        game = f"{TYPES[place % 3]}/game-{place}"
        say = [texts[number % len(texts)]] if texts else []
        won = rng.random() < win_rate
        observation = f"You are in the middle of a room. You see a {_PLACES[0]}. Your task is to: put game {place}."
        prompt = [f"line {i} of the rules of the house" for i in range(prompt_lines)]
        total = 0.0
        length = rng.randint(max(1, steps // 2), steps) if won else steps
        for step in range(1, length + 1):
            there, thing = rng.choice(_PLACES), rng.choice(_THINGS)
            seen = ", a ".join(f"{rng.choice(_KINDS)} {rng.randint(1, 20)}" for _ in range(8))
            answer = f"You arrive at {there}. On the {there}, you see a {thing}, a {seen}, and a {rng.choice(_THINGS)}."
            right = rng.random() < 0.5
            predicted = answer if right else f"You arrive at {there}. On the {there}, you see nothing."
            prompt += [f"> {observation}", f"action {step}"]
            reward = float(won and step == length)
            total += reward
            writer.step(
                StepRecord(
                    episode=number,
                    game=game,
                    trial=trial,
                    step=step,
                    observation=" ".join([observation, *say]),
                    shown="\n".join([*prompt, *say]) if prompt_lines else None,
                    written=" ".join([f"I go there. go to {there}", *say]),
                    thought=" ".join([f"The {thing} may be at {there}.", *say]),
                    action=" ".join([f"go to {there}", *say]),
                    prediction=" ".join([predicted, *say]),
                    next_observation=" ".join([answer, *say]),
                    gap=0.0 if right else round(rng.uniform(0.01, 0.9), 4),
                    gap_reward=float(right),
                    reward=reward,
                    invalid=rng.random() < 0.05,
                    prompt_tokens=100,
                    completion_tokens=10,
                    seconds=0.1,
                )
            )
            observation = answer
        writer.end(
            EpisodeRecord(
                episode=number,
                game=game,
                trial=trial,
                won=won,
                reward=total,
                steps=length,
                task=" ".join([f"put game {place}", *say]),
                task_type=TYPES[place % 3],
                ended="won" if won else "truncated",
            )
        )
    writer.close(complete=finished is None)
    return folder


def play_alfworld(folder: Path, agent: Agent, games: int, budget: int, predict: bool = False, **arguments: Any) -> Path:
    """Play real games of ALFWorld, one after another, and write what happened."""
    import gymnasium

    import rwml_gym  # noqa: F401
    from rwml_gym.reward.gap import GapReward

    arguments = {"split": "generated_held_out", **arguments}
    env = gymnasium.make("rwml_gym/ALFWorld-v0", expert=True, max_episode_steps=budget, **arguments)
    writer = TraceWriter(
        folder,
        header(
            env="alfworld",
            agent=type(agent).__name__,
            model=None,
            split=arguments["split"],
            games=games,
            max_steps=budget,
            env_arguments=arguments,
            gap={"name": "cosine", "threshold": 0.1} if predict else None,
        ),
    )
    gap = GapReward("hashing", 0.1) if predict else None
    names = env.unwrapped.games.names  # type: ignore[attr-defined]
    for number in range(games):
        observation, info = env.reset(options={"game": names[number]})
        agent.reset([True])
        steps: list[StepRecord] = []
        ended = False
        while not ended:
            action = agent.act([observation], [info])[0]
            answer, reward, won, cut, after = env.step(action)
            prediction = _guess(action, observation) if gap else None
            found = gap([prediction], [answer]) if gap and prediction is not None else None
            steps.append(
                StepRecord(
                    episode=number,
                    game=info["game"],
                    trial=0,
                    step=len(steps) + 1,
                    observation=observation,
                    action=action,
                    next_observation=answer,
                    prediction=prediction,
                    gap=None if found is None else float(found.distances[0]),
                    gap_reward=None if found is None else float(found.rewards[0]),
                    reward=float(reward),
                    invalid=after["invalid_action"],
                    inefficient=action.startswith(("look", "examine")),
                )
            )
            writer.step(steps[-1])
            observation, info, ended = answer, after, won or cut
        writer.end(_ended(number, info, steps))
    writer.close(complete=True)
    env.close()
    return folder


def _guess(action: str, observation: str) -> str:
    if action.startswith("go to "):
        place = action.removeprefix("go to ")
        return f"You arrive at {place}. On the {place}, you see nothing."
    return "Nothing happens." if action.startswith(("close", "examine")) else observation


def _ended(number: int, info: Mapping[str, Any], steps: Sequence[StepRecord]) -> EpisodeRecord:
    return EpisodeRecord(
        episode=number,
        game=info["game"],
        trial=0,
        won=info["won"],
        reward=sum(step.reward for step in steps),
        steps=len(steps),
        task=info["task"],
        task_type=info["task_type"],
        invalid=sum(step.invalid for step in steps),
        inefficient=sum(step.inefficient for step in steps),
        ended="won" if info["won"] else "truncated",
        data_version=info["data_version"],
    )
