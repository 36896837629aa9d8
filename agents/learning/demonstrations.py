"""What an expert did, as prompts and what a model should write: the short imitation start of small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.transitions import Transition, TransitionDataset, Turn

__all__ = ["Demonstration", "demonstrations"]


@dataclass(frozen=True)
class Demonstration:
    """A prompt, what follows it, and which of that is to be learnt.

    Attributes:
        prompt: Token ids.
        target: Token ids; of a whole episode the world's answers, too.
        mask: 1 on what the agent writes, 0 on the world's words.
    """

    prompt: list[int]
    target: list[int]
    mask: list[int]


def demonstrations(
    transitions: TransitionDataset, prompts: Prompts, describe: Callable[[str], str] = str
) -> list[Demonstration]:
    """Turns recorded play into demonstrations.

    Args:
        transitions: Of episodes worth imitating, with histories as long as the prompts show.
        prompts: How an agent is asked and writes; with `history=0` an episode is one demonstration, else a turn is.
        describe: The task as the agent is shown it, from the transition's.

    Returns:
        One demonstration an episode, or one a turn; an episode that is longer than a prompt may be ends there.

    Raises:
        InvalidConfigError: The prompts ask for thoughts, which nobody recorded.
    """
    episodes = [list(steps) for _, steps in groupby(transitions, key=lambda transition: transition.episode)]
    if prompts.history == 0:
        return [_whole(steps, prompts, describe) for steps in episodes]
    result = []
    for transition in transitions:
        target = _written(prompts, transition)
        prompt = prompts.act(transition.history, describe(transition.task))
        result.append(Demonstration(prompt, target, [1] * len(target)))
    return result


def _whole(steps: Sequence[Transition], prompts: Prompts, describe: Callable[[str], str]) -> Demonstration:
    prompt = prompts.act([Turn("", steps[0].state)], describe(steps[0].task))
    target: list[int] = []
    mask: list[int] = []
    for number, step in enumerate(steps):
        written = _written(prompts, step)
        answer = prompts.reply(step.next_state, written) if number + 1 < len(steps) else []
        if len(prompt) + len(target) + len(written) > prompts.max_tokens:
            break
        target += [*written, *answer]
        mask += [1] * len(written) + [0] * len(answer)
    return Demonstration(prompt, target, mask)


def _written(prompts: Prompts, step: Transition) -> list[int]:
    return prompts.action_target(step.action, step.next_state if prompts.predictions else None)
