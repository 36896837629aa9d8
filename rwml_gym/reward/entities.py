"""Names and numbers in a text, and a distance in which they must agree.

A small encoder hardly tells `drawer 3` from `drawer 2`: the cosine measures what kind of thing happens, and these sets
which things it happens to.
"""

from __future__ import annotations

import re

__all__ = ["TOLERANCE", "entities", "entity_distance", "things", "values"]

TOLERANCE = 0.0
"""Largest Jaccard distance of two sets of names and numbers that agree. 0: all must be right, and none may be extra."""

# A numbered thing, such as `mug 2`; not the beginning of `seat 12A` or of `costs 25.99`.
_NAMED = re.compile(r"[^\W\d_]+ \d+(?![\w@]|[./:-]\w)")
# With its sign, and whole where it is a fraction, a date or a time.
_VALUE = re.compile(r"(?:(?<![\w.])-(?=\d))?[\w#][\w#@./:-]*")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{2,}")
# A word before a number that is no type of thing: "the zip code is 28236" names 28236, not "is 28236".
_NO_TYPES = frozenset(
    "a about and are at be by for from had has have in is least most of on only or than the to was were with".split()
)
_LONGEST_NUMBER = 3  # digits of the number of a thing; longer ones are codes


def things(text: str) -> list[str]:
    """Return the distinct numbered things and other values with a digit, in lower case, in their order.

    >>> things("On the desk 1, you see a Mug 2 for $25.99, code B0-9.")
    ['desk 1', 'mug 2', '25.99', 'b0-9']
    """
    text = text.lower()
    named = dict.fromkeys(_NAMED.findall(text))
    return [*named, *dict.fromkeys(values(_NAMED.sub(" ", text)))]


def values(text: str) -> list[str]:
    """Return the words with a digit, without the mark that ends them: `#W2378156`, `-342.81`, `3/2`."""
    return [word.rstrip("./:-") for word in _VALUE.findall(text) if any(map(str.isdigit, word))]


def entities(text: str) -> set[str]:
    """Return the names and numbers of a text: numbered things, other numbers and codes, and capitalised words.

    Words that begin a sentence are left out, because they are capitalised anyway.

    >>> sorted(entities("My name is Mei Kovacs. The zip code is 28236."))
    ['28236', 'kovacs', 'mei']
    """
    names = [
        word.lower()
        for sentence in _SENTENCE.split(text)
        for word in _WORD.findall(sentence.lstrip("\"'“( ").partition(" ")[2])
        if word[0].isupper()
    ]
    named = {_numbered(thing) for thing in things(text)}
    return {*named, *names}


def _numbered(thing: str) -> str:
    """Return a numbered thing, or the number alone where the word before it is no type of thing."""
    word, _, number = thing.rpartition(" ")
    return number if word in _NO_TYPES or len(number) > _LONGEST_NUMBER else thing


def entity_distance(prediction: str, truth: str, gap: float) -> float:
    """Return the gap where names and numbers agree, and at least 0.5 where they do not.

    With J, the Jaccard distance of the two sets (0 if both are empty)::

        d = gap                   if J <= TOLERANCE
        d = max(gap, (1 + J) / 2) otherwise

    So no threshold up to 0.5 rewards a wrong name or number, however long the text, and a continuous reward of one is
    at most 0.5. What is neither a name nor a number, such as `open` and `closed`, is left to the encoder.

    Args:
        prediction: The predicted text.
        truth: The realised text.
        gap: Their cosine gap.

    >>> entity_distance("You close the drawer 2.", "You close the drawer 3.", 0.01)
    1.0
    """
    ours, theirs = entities(prediction), entities(truth)
    jaccard = 1 - len(ours & theirs) / len(ours | theirs) if ours or theirs else 0.0
    return gap if jaccard <= TOLERANCE else max(gap, (1 + jaccard) / 2)
