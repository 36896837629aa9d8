"""Steps a second beside TextWorldExpress, the fastest text environments we know, from Python on one core.

    pip install textworld-express  # and a Java runtime
    python benchmarks/text_environments.py

Both give the list of valid actions at every step, and both play random ones. TextWorldExpress runs in a Java process
on the same core, and answers over a socket; its games differ, so each is timed. Resets are not counted. Then the parts
of our step: the text, the list of actions, and Gymnasium around them.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.envs.alfworld.engine.engine import Engine
from rwml_gym.envs.alfworld.engine.lifted import LiftedPlay
from rwml_gym.envs.alfworld.games.generated import GeneratedGames

ROUNDS, EPISODES, STEPS = 5, 4, 50
Play = Callable[[int], tuple[float, int, float]]


def express() -> Iterator[tuple[str, Play]]:
    """The games of TextWorldExpress."""
    from textworld_express import TextWorldExpressEnv

    env = TextWorldExpressEnv(envStepLimit=1000)

    def play(seed: int) -> tuple[float, int, float]:
        rng, steps, taken, actions = random.Random(seed), 0, 0.0, 0
        for episode in range(EPISODES):
            _, infos = env.reset(seed=100 * seed + episode, gameFold="train", generateGoldPath=False)
            done, began = False, time.perf_counter()
            for _ in range(STEPS):
                _, _, done, infos = env.step(rng.choice(infos["validActions"]))
                steps, actions = steps + 1, actions + len(infos["validActions"])
                if done:
                    break
            taken += time.perf_counter() - began
        return taken, steps, actions / steps

    for name in env.getGameNames():
        env.load(gameName=name, gameParams="")
        for seed in range(3):  # Java compiles what runs often
            play(seed)
        yield f"TextWorldExpress {name}", play


def ours(id: str) -> Play:
    """One of our environments, through `gymnasium.make`."""
    env = gymnasium.make(id)

    def play(seed: int) -> tuple[float, int, float]:
        rng, steps, taken, actions = random.Random(seed), 0, 0.0, 0
        for episode in range(EPISODES):
            _, info = env.reset(seed=100 * seed + episode)
            began = time.perf_counter()
            for _ in range(STEPS):
                _, _, terminated, truncated, info = env.step(rng.choice(info["admissible_actions"]))
                steps, actions = steps + 1, actions + len(info["admissible_actions"])
                if terminated or truncated:
                    break
            taken += time.perf_counter() - began
        return taken, steps, actions / steps

    play(0)
    return play


def rates(plays: dict[str, Play]) -> None:
    """Prints steps a second, in turn, as medians."""
    found: dict[str, list[float]] = {name: [] for name in plays}
    width: dict[str, float] = {}
    for seed in range(1, ROUNDS + 1):
        for name, play in plays.items():
            taken, steps, width[name] = play(seed)
            found[name].append(steps / taken)
    for name, speeds in found.items():
        print(f"{name:<40}{statistics.median(speeds):>10,.0f} steps/s{width[name]:>8.0f} valid actions", flush=True)


def parts() -> None:
    """Prints what a step is made of, in microseconds: random episodes, replayed on each level, the best of three."""
    games = GeneratedGames()
    times: dict[str, list[float]] = {}
    for number in range(12):
        game = games.load(games.names[7 * number])
        commands = walk(game.data, random.Random(number))
        env = gymnasium.make("rwml_gym/ALFWorld-v0")
        engine, options = Engine(), {"game": game.name}
        inner = env.unwrapped
        found = {
            "all": replay(partial(env.reset, options=options), env.step, commands),
            "environment": replay(partial(inner.reset, options=options), inner.step, commands),
            "engine": replay(partial(engine.start, game.data), engine.step, commands),
            **inside(game.data, commands),
        }
        for name, taken in found.items():
            times.setdefault(name, []).append(taken * 1e6)
    mean = {name: statistics.fmean(each) for name, each in times.items()}
    print("\nparts of a step on ALFWorld, microseconds")
    print(f"  all, through gymnasium.make         {mean['all']:>8.1f}")
    print(f"    Gymnasium's wrappers              {mean['all'] - mean['environment']:>8.1f}")
    print(f"    the environment and its info      {mean['environment'] - mean['engine']:>8.1f}")
    print(f"    the engine                        {mean['engine']:>8.1f}")
    print(f"      writing the text                {mean['text']:>8.1f}")
    print(f"      finding and sorting the actions {mean['list of actions']:>8.1f}")


def walk(data: Any, rng: random.Random) -> list[str]:
    """Random commands that do not win."""
    engine, commands = Engine(), []
    state = engine.start(data)
    for _ in range(40):
        commands.append(rng.choice(state.admissible))
        state = engine.step(commands[-1])
        if state.won:
            return commands[:-1]
    return commands


def replay(start: Callable[[], Any], step: Callable[[str], Any], commands: list[str]) -> float:
    """Seconds of a step."""
    best = float("inf")
    for _ in range(4):
        start()
        began = time.perf_counter()
        for command in commands:
            step(command)
        best = min(best, (time.perf_counter() - began) / len(commands))
    return best


def inside(data: Any, commands: list[str]) -> dict[str, float]:
    """Seconds of the two main parts of the engine's step, which are done again after it: they change nothing."""
    engine, best = Engine(), {"text": float("inf"), "list of actions": float("inf")}
    for _ in range(4):
        engine.start(data)
        taken = {"text": 0.0, "list of actions": 0.0}
        for command in commands:
            play = engine._play
            assert isinstance(play, LiftedPlay)
            number, row = play._commands[command]
            action = play._game.rules.actions[number]
            changes = {effect.predicate for effect in action.effects} & play._game.rules.tree.fluents
            engine.step(command)
            began = time.perf_counter()
            play._game.texts.feedback[action.name](play, action.binding(row))
            taken["text"] += time.perf_counter() - began
            if changes:
                began = time.perf_counter()
                play._look_up()
                taken["list of actions"] += time.perf_counter() - began
        best = {name: min(best[name], taken[name] / len(commands)) for name in best}
    return best


def main() -> None:
    """Prints both tables."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the Java process inherits it
    plays = {"ALFWorld, here": ours("rwml_gym/ALFWorld-v0"), "toy house, here": ours("rwml_gym/ToyHouse-v0")}
    try:
        for name, play in express():
            rates({name: play, **plays})
    except ImportError as error:
        print(f"Without TextWorldExpress ({error}): pip install textworld-express")
        rates(plays)
    parts()


if __name__ == "__main__":
    main()
