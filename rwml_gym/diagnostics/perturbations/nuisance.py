"""Transitions whose states have arbitrary parts: ids, times and phrases that nothing before them tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rwml_gym.reward.nuisance import check_share, with_nuisance, without_nuisance
from rwml_gym.transitions import Transition, Turn

__all__ = ["arbitrary", "plain"]


def arbitrary(transitions: Iterable[Transition], share: float, seed: int) -> list[Transition]:
    """Return transitions with arbitrary parts in all states.

    What is put in follows from the seed, the game, the episode and the number of the state in it, so a state shows the
    same wherever it occurs: as what follows one step, and in the histories of later ones. Actions and tasks stay.

    Args:
        transitions: Recorded transitions of text environments.
        share: Expected share of arbitrary pieces, in `[0, 1)`; at 0 nothing changes. See `reward.nuisance`.
        seed: Seed of the arbitrary parts.

    Raises:
        InvalidConfigError: The share is not in `[0, 1)`.
    """
    check_share(share)
    if not share:
        return list(transitions)

    def shown(text: str, transition: Transition, number: int) -> str:
        return with_nuisance(text, share, f"{seed} {transition.episode} {number} {transition.game}")

    return [
        replace(
            t,
            history=tuple(
                Turn(turn.action, shown(turn.observation, t, t.step + 1 - age))
                for age, turn in zip(range(len(t.history), 0, -1), t.history, strict=True)
            ),
            next_state=shown(t.next_state, t, t.step + 1),
        )
        for t in transitions
    ]


def plain(transitions: Iterable[Transition]) -> list[Transition]:
    """Return transitions without the arbitrary parts of `arbitrary`, as they were."""
    return [
        replace(
            t,
            history=tuple(Turn(turn.action, without_nuisance(turn.observation)) for turn in t.history),
            next_state=without_nuisance(t.next_state),
        )
        for t in transitions
    ]
