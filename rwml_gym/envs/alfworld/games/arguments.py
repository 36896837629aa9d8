"""Checks of what users ask of a source of games: errors that list what there is."""

from __future__ import annotations

from collections.abc import Sequence

from rwml_gym.errors import InvalidConfigError

__all__ = ["GENERATED_SPLITS", "GRAMMARS", "OFFICIAL_SPLITS", "check", "choose"]

OFFICIAL_SPLITS = ("train", "valid_seen", "valid_unseen", "valid_train")
"""Folders of official games; ``valid_train`` is a part of ``train``."""

GENERATED_SPLITS = ("generated", "generated_held_out")
"""Games made on the fly, for training and for evaluation. No game of one is a game of the other."""

GRAMMARS = ("installed", "original")
"""Official games in the words of the installed alfworld (``move X to Y``), or as the file has them."""


def check(argument: str, value: str, known: Sequence[str]) -> None:
    """Raises `InvalidConfigError` unless a value is among the known ones."""
    if value not in known:
        raise InvalidConfigError(f"Unknown {argument} {value!r}; expected one of {', '.join(known)}.")


def choose(argument: str, chosen: Sequence[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """The chosen task types or rooms, in the order of the known ones whatever the order they were given in."""
    if chosen is None:
        return known
    if isinstance(chosen, str):
        raise InvalidConfigError(f"Expected a list of {argument}, actual value: {chosen!r}; write [{chosen!r}].")
    names = tuple(chosen)
    for name in names:
        check(argument.removesuffix("s").replace("_", " "), name, known)
    if not names:
        raise InvalidConfigError(f"`{argument}` is empty; name some of {', '.join(known)}, or leave it out.")
    return tuple(name for name in known if name in names)
