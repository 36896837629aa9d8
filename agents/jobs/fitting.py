"""Whether prompts have room for what is never cut of them: checked before a run, and for each transition afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from rwml_gym.agents.jobs.worlds import Games
from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = ["check_prompts", "fitting"]

_CHECKED = 16  # games; rules are long, but they are those of a domain, not of a game


def check_prompts(prompts: Prompts, games: Games, show_policy: bool, predicts: bool = False) -> int:
    """Check that instruction, task and rules fit into a prompt, for some of the training games.

    Args:
        prompts: Builds the prompts.
        games: The run's games.
        show_policy: Whether the agent's prompt holds the environment's rules.
        predicts: Whether there are prompts for predictions, too.

    Returns:
        How many tokens they take at most.

    Raises:
        PromptTooLongError: They do not fit; the message says how many tokens they need.
    """
    longest = 0
    with games.make_env() as env:
        for game in islice(dict.fromkeys(games.train), _CHECKED):
            _, info = env.reset(options={"game": game}) if isinstance(game, str) else env.reset(seed=game)
            asked = [prompts.act([], describe_task(info, show_policy))]
            if predicts:
                task, name, known = (str(info.get(key, "")) for key in ("task", "game", "known_info"))
                asked.append(prompts.ask(Transition((), "", "", task, game=name, known_info=known)))
            longest = max(longest, *map(len, asked))
    return longest


def fitting(data: TransitionDataset, prompts: Prompts, say: Callable[[str], Any]) -> TransitionDataset:
    """Leave out the transitions whose task and action alone do not fit into a prompt, and say how many.

    Args:
        data: Transitions.
        prompts: Builds the prompts.
        say: Is told how many are left out, if any.

    Raises:
        PromptTooLongError: None fits.
    """
    fit = TransitionDataset(transition for transition in data if prompts.fits(transition))
    if len(fit) < len(data):
        say(
            f"Left out: {len(data) - len(fit)} of {len(data)} transitions, whose task and action alone take more than "
            f"{prompts.max_tokens} tokens (max_prompt_tokens)."
        )
    if data and not fit:
        prompts.ask(replace(data[0], history=()))  # raises
    return fit
