r"""Arbitrary parts of states: put in so that a loss has to fit what cannot be known, taken out by the measure.

They are words behind the words of a text: ids (`~k7f`), times (`~14:07`), and phrases from a template
(`~briefly-said`). Each begins with a mark, so that they can be told from the text for sure. Words of a text that begin
with the mark themselves get a backslash, so any text comes back as it was.

>>> with_nuisance("You open the drawer 1.", 0.5, seed=1)
'You open the ~6:03 drawer 1.'
>>> without_nuisance("You ~a-b open the drawer ~9:15 1. ~k7")
'You open the drawer 1.'
"""

from __future__ import annotations

import random
import re
from string import ascii_lowercase

from rwml_gym.errors import InvalidConfigError

__all__ = ["check_share", "nuisance_spans", "pieces", "with_nuisance", "without_nuisance"]

MARK = "~"

_MANNERS = "briefly broadly curtly exactly freely loosely mildly plainly purely quietly roughly simply".split()
_VERBS = "called cited given heard logged named noted put read said seen told".split()

_PIECE = re.compile(r"[^\W\d]+|\d|[^\w\s]")
_WORD = re.compile(r"\S+")
_ESCAPED, _ESCAPE = re.compile(rf"(?<!\S)\\(\\*{MARK})"), re.compile(rf"(?<!\S)(\\*{MARK})")
# At the beginning of a text with the white space behind them, elsewhere with the one before them.
_NUISANCE = re.compile(rf"\A(?:{MARK}\S*(?:\s|\Z))+|\s{MARK}\S*")


def pieces(text: str) -> int:
    """Count words, digits and marks, which is about the number of tokens of a text.

    >>> pieces("You are facing the drawer 3.")
    7
    """
    return len(_PIECE.findall(text))


def check_share(share: float, name: str = "share") -> None:
    """Raise `InvalidConfigError` unless a share of arbitrary parts is at least 0 and below 1."""
    if not 0 <= share < 1:
        raise InvalidConfigError(f"Expected {name} of at least 0 and below 1, actual: {share}.")


def with_nuisance(text: str, share: float, seed: int | str) -> str:
    """Put arbitrary words into a text; a text without words stays as it is.

    Args:
        text: Any text.
        share: Expected share of arbitrary pieces in the result, see `pieces`. A text differs from it by less than one
            arbitrary word.
        seed: What is put in, and where, follows from it.

    Raises:
        InvalidConfigError: The share is not in `[0, 1)`.
    """
    check_share(share)
    text = _ESCAPE.sub(r"\\\1", text)
    ends = [match.end() for match in _WORD.finditer(text)]
    if not ends:
        return text
    rng = random.Random(f"nuisance {seed}")
    wanted = pieces(text) * share / (1 - share)
    behind: dict[int, str] = dict.fromkeys(ends, "")
    while wanted > 0:
        word = _arbitrary(rng)
        size = pieces(word)
        # The last word is put in as often as needed for the share on average.
        if size > wanted and rng.random() >= wanted / size:
            break
        wanted -= size
        behind[rng.choice(ends)] += f" {word}"
    starts = [0, *ends]
    return "".join(text[a:b] + behind[b] for a, b in zip(starts, ends, strict=False)) + text[ends[-1] :]


def without_nuisance(text: str) -> str:
    """Take arbitrary words out of a text, so that `without_nuisance(with_nuisance(text, …)) == text`."""
    return _ESCAPED.sub(r"\1", _NUISANCE.sub("", text))


def nuisance_spans(text: str) -> list[tuple[int, int]]:
    """Return where the arbitrary words of a text are, with their white space, as pairs of begin and end."""
    return [match.span() for match in _NUISANCE.finditer(text)]


def _arbitrary(rng: random.Random) -> str:
    kind = rng.randrange(3)
    if kind == 0:
        return f"{MARK}{rng.choice(ascii_lowercase)}{rng.randrange(10)}{rng.choice(ascii_lowercase)}"
    if kind == 1:
        return f"{MARK}{rng.randrange(24)}:{rng.randrange(60):02d}"
    return f"{MARK}{rng.choice(_MANNERS)}-{rng.choice(_VERBS)}"
