"""Stock alfworld beside our engine: the same commands to both, and whatever differs is an assertion error."""

from __future__ import annotations

import random

import textworld
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
from textworld.envs.pddl import PddlEnv

from rwml_gym.envs.alfworld.engine.engine import Engine

ODD = [
    "",
    "   ",
    "Look",
    "LOOK",
    "look\n",
    "\tlook ",
    "look at nothing",
    "go to  fridge 1",
    "go to fridge 99",
    "take from",
    "{o}",
    "{o.name}",
    "#intro#",
    "[x]",
    "%s",
    "__import__('os')",
    "🙂 ⚀",
    "go to frídge 1",
    "\uff4c\uff4f\uff4f\uff4b",
    "\u00a0look\u2003",
    "look\x00",
    "x" * 10_000,
]


def stock_env() -> AlfredInfos:
    """What alfworld plays with; each one leaks 35 MB of disk."""
    return AlfredInfos(
        AlfredDemangler(
            PddlEnv(textworld.EnvInfos(feedback=True, won=True, admissible_commands=True, extras=["gamefile"]))
        )
    )


def odd_command(rng: random.Random, admissible: list[str]) -> str:
    """Something that is not admissible, or only just: wrong case, cut short, spaces around it."""
    command = rng.choice(admissible)
    variants = [
        command.upper(),
        command.title(),
        command[:-1],
        f" {command}\t",
        command.replace(" ", "  "),
        command * 2,
    ]
    return rng.choice(ODD + variants)


def walk_both(game, stock, steps, seed=0, plan=(), engine=None):
    """Says the same to both engines: random admissible commands, a fifth odd ones, then the plan.

    Returns:
        The last state of ours.
    """
    rng = random.Random(seed)
    ours = engine or Engine()
    stock.load(game.data)
    theirs = stock.reset()
    state = ours.start(game.data)
    assert state == (theirs["feedback"], theirs["admissible_commands"], theirs["won"]), game.name
    for number in range(steps + len(plan)):
        if number >= steps:
            command = plan[number - steps]
        elif rng.random() < 0.2:
            command = odd_command(rng, state.admissible)
        else:
            command = rng.choice(state.admissible)
        theirs, score, done = stock.step(command)
        state = ours.step(command)
        expected = theirs["feedback"], theirs["admissible_commands"], theirs["won"]
        assert state == expected, (game.name, number, command)
        # stock's score and end say nothing more than `won`, from which the environment makes its reward and its end
        assert (score, done) == (int(state.won), state.won), (game.name, number, command)
    return state
