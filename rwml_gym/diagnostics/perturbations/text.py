"""Rewordings and falsifications of realised states: the labelled pairs for the calibration of a threshold.

A *same* perturbation keeps the state and changes its words or their order; a *different* one makes a false state. Both
are rules on the text. A rule that does not apply leaves the text unchanged, and the pair is skipped. The rules know
the phrases of ALFWorld, and lists and numbered things in any English text. For tool results see `tool` and `schema`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwml_gym.diagnostics.perturbations.paraphrase import paraphrased
from rwml_gym.transitions import Transition, action_type

__all__ = [
    "DIFFERENT",
    "SAME",
    "TEXT",
    "Perturbation",
    "Perturbations",
    "Pool",
    "failed",
    "json_result",
    "left_out",
    "listed",
    "named_values",
    "other_outcome",
    "reshuffled",
    "shuffled_words",
]

# A numbered thing: "fridge 1". A list: what follows "you see", "carrying:" … up to the end of the sentence.
_THING = re.compile(r"\b([A-Za-z]+) (\d+)\b")
# The last number, which is in the part that encoders weigh least.
_LAST_NUMBER = re.compile(r"\d+(?=\D*\Z)", re.ASCII)
_LIST = re.compile(r"(?i)\b(?:see|carrying|contains?|holds?|includes?):? (?P<items>[^.:;!?\n]+)")
_ITEM = re.compile(r",\s*(?:and\s+)?|\s+and\s+")
_ARTICLE = re.compile(r"(?i)\b(?:an?|the)\s+")
_ROLE = re.compile(r"[a-z]+: ")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")

_REWORDINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b([Yy])ou see\b", r"\1ou can see"),
        (r"\bYou arrive at\b", "You are now at"),
        (r"\bYou are facing\b", "You stand in front of"),
        (r"\bNext to it,", "Beside it,"),
        (r"\bIn it,", "Inside it,"),
        (r"\bis closed\b", "is shut"),
        (r"\bis open\b", "has been opened"),
        (r"\bYou open\b", "You have opened"),
        (r"\bYou close\b", "You shut"),
        (r"\bYou pick up\b", "You take"),
        (r"\bYou move (the [\w ]+?) to\b", r"You put \1 in/on"),
        (r"\bYou turn on\b", "You switch on"),
        (r"\bYou (clean|heat|cool) (the [\w ]+?) using (the [\w ]+)", r"You use \3 to \1 \2"),
        (r"\bYou are not carrying anything\b", "Your hands are empty"),
        (r"\bYou are carrying: ", "You hold "),
        (r"\bThere's nothing special about\b", "You notice nothing special about"),
        (r"\bNothing happens\b", "There is no effect"),
        # For any English text.
        (r"\bYou are in\b", "You find yourself in"),
        (r"\b([Hh])ere, ", r"\1ere "),
        (r"\bcannot\b", "can not"),
        (r"\bYes, please\b", "Sure,"),
        (r"\bcould you please\b", "can you"),
    )
)
_OPPOSITES = {
    "open": "closed",
    "closed": "open",
    "opened": "closed",
    "on": "off",
    "off": "on",
    "enabled": "disabled",
    "disabled": "enabled",
    "true": "false",
    "false": "true",
}
# Only states ("is open", "turn on", "enabled: true"), not places ("on the shelf 1").
_STATE = re.compile(rf"(?i)\b(is|turn|:) ({'|'.join(_OPPOSITES)})\b")


class Pool:
    """Material for falsifications, from other transitions.

    Attributes:
        nouns: The distinct types of numbered things.
        lists: The distinct lists, as written.
        items: The distinct things in lists.
        outcomes: The distinct next states by action type.
        failures: The distinct answers to actions that failed, see `failed`.
        rejection: The most frequent of these answers; `None` if there are none.
        values: The distinct texts in JSON results, by name.
    """

    def __init__(self, transitions: Sequence[Transition]):
        """Collect the material from transitions."""
        texts = list(dict.fromkeys(transition.next_state for transition in transitions))
        self.nouns = sorted({noun for text in texts for noun, _ in _THING.findall(text)})
        lists = dict.fromkeys(match["items"] for text in texts if (match := _LIST.search(text)))
        self.lists = [items for items in lists if not _is_nothing(items)]
        self.items = sorted({item for items in self.lists for item in _split(items)})
        outcomes: dict[str, dict[str, None]] = defaultdict(dict)
        values: dict[str, dict[str, None]] = defaultdict(dict)
        for transition in transitions:
            outcomes[action_type(transition.action)][transition.next_state] = None
            if transition.role == "tool":
                for name, value in named_values(json_result(transition.next_state)[1]):
                    if isinstance(value, str):
                        values[name][value] = None
        self.outcomes = {kind: list(states) for kind, states in outcomes.items()}
        self.values = {name: list(found) for name, found in values.items()}
        rejected = Counter(transition.next_state for transition in transitions if failed(transition))
        self.failures = list(rejected)
        self.rejection = rejected.most_common(1)[0][0] if rejected else None


Perturbation = Callable[[Transition, Pool, np.random.Generator], str]
"""Makes a text about a transition's next state, or returns the next state if it does not apply."""


@dataclass(frozen=True)
class Perturbations:
    """Perturbations for one kind of state, by name: those that keep the state, and those that make another one."""

    same: Mapping[str, Perturbation]
    different: Mapping[str, Perturbation]


def failed(transition: Transition) -> bool:
    """Return whether the environment rejected the action, or a tool answered with an error."""
    return transition.invalid_action or transition.next_state.removeprefix("tool: ").startswith("Error")


def json_result(text: str) -> tuple[str, Any]:
    """Split a result into its role (`tool: `) and its JSON object or list; `None` if it is neither."""
    match = _ROLE.match(text)
    role = match.group() if match else ""
    try:
        data = json.loads(text[len(role) :])
    except (ValueError, RecursionError):
        return role, None
    return role, data if isinstance(data, dict | list) else None


def _reordered(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    def shuffled(items: str) -> str:
        things = _split(items)
        order = rng.permutation(len(things))
        return _listing([things[index] for index in order])

    return _with_list(transition.next_state, shuffled)


def _one_rewording(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    applicable = [rule for rule in _REWORDINGS if rule[0].search(text)]
    if not applicable:
        return text
    pattern, replacement = applicable[rng.integers(len(applicable))]
    return pattern.sub(replacement, text)


def _all_rewordings(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    applicable = [rule for rule in _REWORDINGS if rule[0].search(text)]
    if len(applicable) < 2:  # a single rule is "one rewording"
        return text
    for pattern, replacement in applicable:
        text = pattern.sub(replacement, text)
    return text


def _without_articles(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    return _ARTICLE.sub("", transition.next_state)


def _other_number(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    things = sorted(set(_THING.findall(text)))
    if not things:
        return text
    noun, number = things[rng.integers(len(things))]
    other = _number(number, 1 if number.lstrip("0") in ("", "1") or rng.random() < 0.5 else -1)
    return re.sub(rf"\b{noun} {number}\b", f"{noun} {other}", text)


def _last_number_higher(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    return _LAST_NUMBER.sub(lambda match: _number(match[0], 1), transition.next_state)


def _number(digits: str, step: int) -> str:
    """Return a number that is one step away; of one that is too long for Python, the last digit is changed."""
    return str(int(digits) + step) if len(digits) < 1_000 else digits[:-1] + str((int(digits[-1]) + step) % 10)


def _one_left_out(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    items = listed(transition.next_state)
    return left_out(transition.next_state, items[rng.integers(len(items))]) if items else transition.next_state


def _other_thing(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    if things := sorted(set(_THING.findall(text))):
        noun, number = things[rng.integers(len(things))]
        other = pool.nouns[rng.integers(len(pool.nouns))]
        return re.sub(rf"\b{noun} {number}\b", f"{other} {number}", text)

    def exchanged(items: str) -> str:
        parts = _split(items)
        parts[rng.integers(len(parts))] = pool.items[rng.integers(len(pool.items))]
        return _listing(parts)

    return _with_list(text, exchanged) if pool.items else text


def _other_contents(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    def replaced(items: str) -> str:
        other = pool.lists[rng.integers(len(pool.lists))]
        return items if set(_split(other)) == set(_split(items)) else other

    return _with_list(transition.next_state, replaced) if pool.lists else transition.next_state


def _nothing_for_something(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    match = _LIST.search(text)
    if match is None or match["items"].strip() == "anything":  # "not carrying anything" has no place for a list
        return text
    something = pool.lists[rng.integers(len(pool.lists))] if pool.lists else match["items"]
    return _put(text, match, something if _is_nothing(match["items"]) else "nothing")


def _contents_left_out(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    sentences = _SENTENCE.split(transition.next_state)
    kept = [sentence for sentence in sentences if not _holds_something(sentence)]
    # A text that consists of its list alone would become blank, which is never rewarded anyway.
    return " ".join(kept) if kept and len(kept) < len(sentences) else transition.next_state


def _opposite_state(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    return _STATE.sub(lambda match: f"{match[1]} {_OPPOSITES[match[2].lower()]}", transition.next_state)


def other_outcome(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    """Return what followed the same type of action elsewhere."""
    outcomes = pool.outcomes[action_type(transition.action)]
    other = outcomes[rng.integers(len(outcomes))]
    # The same words in another order may be the same state.
    return transition.next_state if sorted(_words(other)) == sorted(_words(transition.next_state)) else other


def _rejected(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    return transition.next_state if pool.rejection is None else pool.rejection


def _hedged(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    # Similarity pays for naming everything that may happen; see docs/hacking.md.
    return f"Perhaps: {transition.next_state} Or perhaps nothing happens."


def _denied(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    return f"{transition.next_state} No, none of this is true."


def shuffled_words(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    """Return the words in another order, at random; the text as it is if they have none that differs much."""
    return reshuffled(_words(transition.next_state), rng) or transition.next_state


SAME: dict[str, Perturbation] = {
    "list reordered": _reordered,
    "one rewording": _one_rewording,
    "all rewordings": _all_rewordings,
    "articles left out": _without_articles,
    "paraphrase by template": lambda transition, pool, rng: paraphrased(transition.next_state),
}
DIFFERENT: dict[str, Perturbation] = {
    "other number": _other_number,
    "last number + 1": _last_number_higher,
    "one thing left out": _one_left_out,
    "other thing": _other_thing,
    "other contents": _other_contents,
    "nothing for something": _nothing_for_something,
    "contents left out": _contents_left_out,
    "opposite state": _opposite_state,
    "other outcome": other_outcome,
    "rejected": _rejected,
    "hedged": _hedged,
    "denied": _denied,
    "shuffled words": shuffled_words,
}
TEXT = Perturbations(SAME, DIFFERENT)
"""For states in natural language."""


def _with_list(text: str, change: Callable[[str], str]) -> str:
    """Change the first list of things in a text; without a list, return the text unchanged."""
    match = _LIST.search(text)
    return text if match is None or _is_nothing(match["items"]) else _put(text, match, change(match["items"]))


def _put(text: str, match: re.Match[str], items: str) -> str:
    return text[: match.start("items")] + items + text[match.end("items") :]


def _split(items: str) -> list[str]:
    return [item.strip() for item in _ITEM.split(items) if item.strip()]


def _listing(things: list[str]) -> str:
    """Join things as ALFWorld lists them: "a", "a, and b" or "a, b, and c"."""
    return things[0] if len(things) == 1 else ", ".join(things[:-1]) + f", and {things[-1]}"


def _is_nothing(items: str) -> bool:
    return items.strip().lower() in {"nothing", "anything"}


def _holds_something(sentence: str) -> bool:
    match = _LIST.search(sentence)
    return match is not None and not _is_nothing(match["items"])


def reshuffled(words: Sequence[str], rng: np.random.Generator) -> str:
    """Return words in another order, at random; an empty text if there is none that differs much.

    Two shuffled words are still nearly the sentence.
    """
    if len(words) < 3:
        return ""
    # The order may come out as it was, or look so because words repeat.
    orders = [words[i] for i in rng.permutation(len(words))], [*words[1:], words[0]]
    return next((" ".join(order) for order in orders if order != list(words)), "")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def listed(text: str) -> list[str]:
    """Return the things in the first list of a text: `["a mug 1", "a pen 2"]`; none without a list."""
    match = _LIST.search(text)
    return [] if match is None or _is_nothing(match["items"]) else _split(match["items"])


def left_out(text: str, item: str) -> str:
    """Return a text without one of the things in its first list, see `listed`."""

    def shortened(items: str) -> str:
        things = _split(items)
        things.remove(item)
        return _listing(things) if things else "nothing"

    return _with_list(text, shortened)


def named_values(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in JSON data with its name; the values of a list have the name of the list."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from named_values(value, key)
    elif isinstance(data, list):
        for value in data:
            yield from named_values(value, name)
    else:
        yield name, data
