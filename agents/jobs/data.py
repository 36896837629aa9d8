"""The transitions of a job between playing and learning: what of them is shown, what is learnt, and whether it fits.

Whether prompts have room for what is never cut of them is checked before a run, and for each transition afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.placebo import placebo_answers, vocabulary
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import Games, Source
from rwml_gym.diagnostics.perturbations.nuisance import arbitrary, plain
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import ViewName, in_view
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = [
    "as_played",
    "check_prompts",
    "check_target_view",
    "divide",
    "fitting",
    "some_of",
    "viewed",
    "with_arbitrary_parts",
    "with_outcome",
    "with_placebo",
]

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
                task, name, known = (str(info.get(key) or "") for key in ("task", "game", "known_info"))
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


def viewed(data: TransitionDataset, view: ViewName) -> TransitionDataset:
    """Return transitions with the targets of a view: results of tools in it, all else as it was played."""
    return TransitionDataset(in_view(data, view))


def check_target_view(source: Source, view: ViewName) -> None:
    """Raise `InvalidConfigError` if a view is asked for and the world has no results of tools."""
    if view != "raw" and not source.world.roles:
        raise InvalidConfigError(
            f"Expected a world with results of tools for the target view {view!r}, actual: {source.world.title}. Use "
            "--target-view raw."
        )


def with_arbitrary_parts(run: Run, data: TransitionDataset) -> TransitionDataset:
    """Put the run's share of arbitrary parts into all states, see `diagnostics.perturbations.nuisance`."""
    return TransitionDataset(arbitrary(data, run.config.nuisance, run.seed("nuisance")))


def as_played(run: Run, data: TransitionDataset) -> TransitionDataset:
    """Take the arbitrary parts out again, for what the model is not shown: lookups, calibration, kinds of rows."""
    return TransitionDataset(plain(data)) if run.config.nuisance else data


def with_placebo(run: Run, data: TransitionDataset) -> TransitionDataset:
    """Replace the answers to learn; what was seen before them stays."""
    placebo, tokenizer = run.config.placebo, run.tokenizer
    words = vocabulary(tokenizer) if placebo == "random" else []
    kinds = [t.role for t in data]  # a transition does not name its task type
    seed = run.seed("placebo")
    answers = placebo_answers([t.next_state for t in data], kinds, placebo, seed, tokenizer, words)
    return TransitionDataset(replace(t, next_state=text) for t, text in zip(data, answers, strict=True))


def divide(data: TransitionDataset, share: float, seed: int) -> tuple[TransitionDataset, TransitionDataset]:
    """Split off a random share of the transitions, or use all of them twice; both parts are in random order."""
    order = random.Random(seed).sample(range(len(data)), len(data))
    if share == 1:
        return TransitionDataset(data[i] for i in order), TransitionDataset(data[i] for i in order)
    count = min(max(1, round(share * len(data))), len(data) - 1)
    return TransitionDataset(data[i] for i in order[:count]), TransitionDataset(data[i] for i in order[count:])


def with_outcome(data: TransitionDataset) -> TransitionDataset:
    """Leave out transitions without an outcome, such as the agent's end of a conversation: they earn nothing."""
    return TransitionDataset(transition for transition in data if transition.next_state.strip())


def some_of(data: TransitionDataset, limit: int, seed: int) -> TransitionDataset:
    """Choose at most `limit` random transitions, in their order; all for 0."""
    if not limit or len(data) <= limit:
        return data
    return TransitionDataset(data[i] for i in sorted(random.Random(seed).sample(range(len(data)), limit)))
