"""What a scripted user says: a task's words about the user, told by the user, without the directions to an actor.

The tasks speak to whoever plays the user: "You want to cancel … Make sure you mention … If the agent refuses, …". Read
aloud, that gives the agent what it is to find out, and is no customer's talk.
"""

from __future__ import annotations

import re

__all__ = ["in_first_person"]

# Sentences that say how to play the user.
_DIRECTION = re.compile(
    r"\b(?:conversation|interact\w*|reveal\w*|pretend\w*|mention\w*|abruptly|insist\w*|persist\w*|"
    r"make up|made up|trick|lie|lying|fake|trying to make|if it refuses|if they refuse|make sure|"
    r"do not (?:tell|say|ask|accept|volunteer)|don't (?:tell|say|ask|volunteer))\b",
    re.IGNORECASE,
)
_AGENT = re.compile(r"\b(?:the|an?) (?:customer service )?agent\b", re.IGNORECASE)
# What such a sentence begins with if it names the agent and is about what the agent may say, or an order.
_ABOUT_AGENT = re.compile(
    r"\W*(?:(?:and|but|also|then|first|next|finally|only|otherwise)\W+)*"
    r"(?:if|when|once|after|before|until|unless|while|as|ask|tell|say|let|give|provide|request|try|start|begin|keep|wait)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?](?!\s|$)[^.!?\n]*)*[.!?]*[ \t]*\n?")
_ASIDE = re.compile(r"\s*\([^()]*\)")

_OBJECT = (
    "to|for|with|at|from|of|by|about|around|let|lets|help|helps|give|gives|gave|tell|tells|told|ask|asks|offer|offers|"
    "allow|allows|upgrade|upgrades|refund|refunds|charge|charges|charged|cost|costs|cause|causes|caused|makes|made|"
    "save|saves|send|sends|sent|owe|owes|show|shows|get|gets|suits|bothers|reach|contact|call|between|behind|near"
)
_TO_WHOM = "\x00"  # the agent, whom a customer calls "you"
_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"\bare you\b", "am I"),
        (r"\bwere you\b", "was I"),
        (r"\byou are\b", "I am"),
        (r"\byou aren['\u2019]t\b", "I am not"),
        (r"\byou['\u2019]re\b", "I'm"),
        (r"\byou were\b", "I was"),
        (r"\byou weren['\u2019]t\b", "I wasn't"),
        (r"\byou (?=(?:name|mobile|phone|email|user id|zip)\b)", "my "),  # a slip in the tasks
        (r"\byourself\b", "myself"),
        (r"\byours\b", "mine"),
        (r"\byour\b", "my"),
        (rf"\b({_OBJECT}) you\b(?!['\u2019])", r"\1 me"),
        (r"\byou\b", "I"),
        (f"{_TO_WHOM} (?:is|was)\\b", "you are"),
        (f"{_TO_WHOM} has\\b", "you have"),
        (f"{_TO_WHOM} does\\b", "you do"),
        (f"{_TO_WHOM} (ask|say|offer|refuse|want|need|tell|give|allow|respond|insist)s\\b", r"you \1"),
        (_TO_WHOM, "you"),
    )
]


def in_first_person(text: str) -> str:
    """Return a task's words about the user as the user says them.

    Sentences that direct whoever plays the user are left out, and what stands in brackets with them.

    Args:
        text: The words, in the second person. Other words stay as they are.

    >>> in_first_person("You want to cancel your flight. Make sure you mention it first. You are Emma Kim.")
    'I want to cancel my flight. I am Emma Kim.'
    """
    kept = [part for part in _SENTENCE.findall(_ASIDE.sub("", text)) if part.strip(" .\n") and not _directs(part)]
    told = _AGENT.sub(_TO_WHOM, re.sub(r"\s+", " ", " ".join(part.strip() for part in kept)))
    for pattern, words in _RULES:
        told = pattern.sub(words, told)
    told = re.sub(r"(^|[.!?] )([a-z])(?!\w*[_@\d])", lambda found: found[1] + found[2].upper(), told)
    return told.strip()


def _directs(sentence: str) -> bool:
    about = _AGENT.search(sentence) is not None and _ABOUT_AGENT.match(sentence) is not None
    return about or _DIRECTION.search(sentence) is not None
