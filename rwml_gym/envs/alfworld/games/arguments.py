"""Checks of the arguments of a game source, with errors that list the allowed values."""

from __future__ import annotations

from collections.abc import Sequence

from rwml_gym.checks import one_of
from rwml_gym.errors import InvalidConfigError

__all__ = ["GENERATED_SPLITS", "GRAMMARS", "OFFICIAL_SPLITS", "choose"]

OFFICIAL_SPLITS = ("train", "valid_seen", "valid_unseen", "valid_train")
"""The folders of official games; ``valid_train`` is a part of ``train``."""

GENERATED_SPLITS = ("generated", "generated_held_out")
"""Games generated on the fly, for training and for evaluation. The two splits have no common game."""

GRAMMARS = ("installed", "original", "mixed")
"""Games in the words of the installed alfworld (``move X to Y``), in the published ones (``put X in/on Y``), or half of
them in each."""


def choose(argument: str, chosen: Sequence[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the chosen task types or rooms, always in the order of the known ones."""
    if chosen is None:
        return known
    if isinstance(chosen, str):
        raise InvalidConfigError(f"Expected a list of {argument}, actual: {chosen!r}. Write [{chosen!r}].")
    names = tuple(chosen)
    for name in names:
        one_of(argument.removesuffix("s").replace("_", " "), name, known)
    if not names:
        raise InvalidConfigError(f"Expected some of {', '.join(known)}, actual: no `{argument}`. Add some or omit it.")
    return tuple(name for name in known if name in names)
