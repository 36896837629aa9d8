"""Paraphrases of ALFWorld's observations by templates: every sentence in other words and in another order.

A rewording (`text`) exchanges a phrase and leaves the sentence. Here nothing of a sentence is left but what it names,
which is what a model that answers in its own words would write.
"""

from __future__ import annotations

import re

__all__ = ["paraphrased"]

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_THING = r"(?:the |a |an )?(\w+ \d+)"
_NOTHING = {"nothing", "anything"}

_TEMPLATES = tuple(
    (re.compile(pattern), paraphrase)
    for pattern, paraphrase in (
        (rf"You arrive at {_THING}\.", r"A few steps later you stand before the \1."),
        (rf"You open {_THING}\.", r"You pull the \1 open."),
        (rf"You close {_THING}\.", r"You push the \1 shut."),
        (rf"The {_THING} is open\.", r"Now the door of the \1 is ajar."),
        (rf"The {_THING} is closed\.", r"Nobody has opened the \1 yet."),
        (rf"You pick up {_THING} from {_THING}\.", r"From the \2 the \1 comes into your hand."),
        (
            rf"You (?:move|put) {_THING} (?:to|in/on|in|on) {_THING}\.",
            r"The \2 now holds the \1, and your hand is free.",
        ),
        (rf"You turn on {_THING}\.", r"The \1 begins to shine."),
        (rf"You turn off {_THING}\.", r"The \1 stops shining."),
        (rf"You (clean|heat|cool) {_THING} using {_THING}\.", r"With the help of the \3 you \1 the \2."),
        (r"You are not carrying anything\.", "There is nothing in your hands."),
        (rf"You are facing {_THING}\.", r"In front of you is the \1."),
        (rf"There's nothing special about {_THING}\.", r"The \1 looks ordinary in every way."),
        (r"Nothing happens\.", "The command has no effect at all."),
        (r"You are in the middle of a room\.", "All around you is a room."),
    )
)
_LISTS = tuple(
    (re.compile(pattern), something, nothing)
    for pattern, something, nothing in (
        (r"You are carrying: (?P<items>.+)\.", "In your hands: {items}.", "There is nothing in your hands."),
        (rf"On {_THING}, you see (?P<items>.+)\.", "The {place} has these on it: {items}.", "The {place} is bare."),
        (r"In it, you see (?P<items>.+)\.", "Inside lie {items}.", "Inside it is empty."),
        (r"Next to it, you see (?P<items>.+)\.", "Beside it lie {items}.", "Beside it is an empty spot."),
        (r"Looking quickly around you, you see (?P<items>.+)\.", "A glance shows {items}.", "A glance shows nothing."),
    )
)


def paraphrased(text: str) -> str:
    """Return a text with every sentence paraphrased; the text unchanged if a sentence has no template.

    >>> paraphrased("You arrive at desk 1. On the desk 1, you see a pen 2, and a mug 1.")
    'A few steps later you stand before the desk 1. The desk 1 has these on it: a pen 2, and a mug 1.'
    """
    made = [_sentence(sentence) for sentence in _SENTENCE.split(text)]
    return text if None in made else " ".join(map(str, made))


def _sentence(sentence: str) -> str | None:
    for pattern, something, nothing in _LISTS:
        if match := pattern.fullmatch(sentence):
            place = match[1] if pattern.groups > 1 else ""
            return (nothing if match["items"] in _NOTHING else something).format(place=place, items=match["items"])
    for pattern, paraphrase in _TEMPLATES:
        if match := pattern.fullmatch(sentence):
            return match.expand(paraphrase)
    return None
