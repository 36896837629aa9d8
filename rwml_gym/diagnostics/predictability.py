"""Predictability of an environment, measured on recorded transitions alone, without a model.

Contents of places that were never seen, random ids and search results do not follow from the history, so no training
makes their prediction right. The measures are proxies, each with a known bias.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rwml_gym.encoders.cached import make_encoder
from rwml_gym.reward.entities import things, values
from rwml_gym.transitions import Transition, action_type

__all__ = ["Repeats", "names_nothing_new", "nearest_elsewhere", "repeated_situations", "type_of", "unseen_names"]

# Exclude the letters inside a code.
_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{3,}(?![^\W_])")

# A thing that occurs in half of the answers to a type of action belongs to the template ("Page 1"), not the contents.
_TEMPLATE_SHARE = 0.5
# With fewer answers in other games, half of them is no template: two rooms may well have the same apple.
_MIN_ANSWERS = 10
# A word in at least one other game in twenty belongs to the environment's vocabulary; a rarer one, such as a brand,
# must have been read before. At least one other game must have it, even if there are few games.
_WORLD_SHARE = 0.05
# Maximal number of answers of other games that are compared; more hardly find a nearer one.
_MAX_CANDIDATES = 5_000


def type_of(transition: Transition) -> str:
    """Return the type of an action; all messages to a user have one type, `(words)`."""
    return "(words)" if transition.role == "user" else action_type(transition.action)


def names_nothing_new(transition: Transition) -> bool:
    """Return whether every numbered thing in the next state (`apple 2`, `12A`) occurs in the window, action or task.

    It uses one transition only, so reports can group their rows by it. An empty drawer names nothing new and is still a
    guess. In a tool result, the things are all values with a digit (`#W2378156`, `342.81`).
    """
    known = _known(transition)
    named = values if transition.role == "tool" else things
    return set(named(transition.next_state)) <= set(named(known))


def unseen_names(transitions: Sequence[Transition]) -> list[tuple[str, ...]]:
    """Return the unseen content of each next state; a transition is predictable only if there is none.

    It counts *things* (a word and its number, `apple 2`, and every other value with a digit, `B09KP78G37`, `$25.99`)
    and *words* of three letters or more. Known is what occurs in the window, the action or the task. A thing is also
    known if at least half of the answers in other games to that action, or to that type of action, name it (and there
    are at least ten of them). A word is also known if one other game in twenty has it in an answer. With a single game,
    nothing is known from others. The bound is *optimistic*: an empty drawer names nothing new but is a guess.

    Args:
        transitions: Recorded transitions.

    Returns:
        For each transition its unseen names, in the order of the text.
    """
    said_things = [things(t.next_state) for t in transitions]
    words = [dict.fromkeys(_WORD.findall(t.next_state.lower())) for t in transitions]
    # A template belongs to a type of action, or to a single action (`click[Buy Now]`).
    questions = [((type_of(t), t.role), (t.action.strip(), t.role, "")) for t in transitions]
    # Counts in all games and in each game; the difference is the count in the *other* games.
    answers: Counter[tuple[object, ...]] = Counter()
    named: Counter[tuple[object, ...]] = Counter()
    games_with: dict[str, set[str]] = defaultdict(set)
    for asked, transition, ours, said in zip(questions, transitions, said_things, words, strict=True):
        for question in asked:
            answers.update([(question,), (question, transition.game)])
            named.update(key for thing in ours for key in ((question, thing), (question, thing, transition.game)))
        for word in said:
            games_with[word].add(transition.game)

    def in_template(thing: str, asked: tuple[tuple[str, ...], ...], game: str) -> bool:
        for question in asked:
            elsewhere = answers[(question,)] - answers[question, game]
            naming = named[question, thing] - named[question, thing, game]
            if elsewhere >= _MIN_ANSWERS and naming >= _TEMPLATE_SHARE * elsewhere:
                return True
        return False

    enough = max(1, math.ceil(_WORLD_SHARE * (len({t.game for t in transitions}) - 1)))
    found = []
    for asked, transition, ours, said in zip(questions, transitions, said_things, words, strict=True):
        known = _known(transition).lower()
        known_things, known_words = set(things(known)), set(_WORD.findall(known))
        unseen = [t for t in ours if t not in known_things and not in_template(t, asked, transition.game)]
        unseen += [word for word in said if word not in known_words and len(games_with[word]) - 1 < enough]
        found.append(tuple(unseen))
    return found


@dataclass(frozen=True)
class Repeats:
    """Outcomes of situations that occurred more than once, with the same window, action and task.

    Attributes:
        transitions: Number of transitions in such situations.
        agreement: Share of their pairs with the same outcome; NaN without pairs. The rest is chance, or depends on
            what the window does not show.
    """

    transitions: int
    agreement: float


def repeated_situations(transitions: Sequence[Transition]) -> Repeats:
    """Measure how often the same situation has the same outcome; it needs no rule about words.

    Args:
        transitions: Recorded transitions; the longer their windows, the fewer situations repeat.
    """
    outcomes: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    for t in transitions:
        outcomes[t.history, t.action.strip(), t.task][t.next_state] += 1
    repeated = [found for found in outcomes.values() if found.total() > 1]
    pairs = sum(math.comb(found.total(), 2) for found in repeated)
    alike = sum(math.comb(count, 2) for found in repeated for count in found.values())
    return Repeats(sum(found.total() for found in repeated), alike / pairs if pairs else float("nan"))


def nearest_elsewhere(transitions: Sequence[Transition], among: Sequence[Transition]) -> list[str]:
    """For each transition, find the next state of another game that is most similar to its own; empty if none.

    A perfect memory of templates could answer this. Similar texts share character n-grams, so no model is needed.

    Args:
        transitions: `n` transitions.
        among: Transitions to search; at most 5,000 distinct answers are used, evenly spread.
    """
    candidates = list({(t.next_state, t.game): None for t in among if t.next_state.strip()})
    candidates = candidates[:: max(1, math.ceil(len(candidates) / _MAX_CANDIDATES))]
    if not candidates or not transitions:
        return [""] * len(transitions)
    encoder = make_encoder("hashing")
    theirs, games = encoder.encode([text for text, _ in candidates]), np.array([game for _, game in candidates])
    found = []
    for transition, own in zip(transitions, encoder.encode([t.next_state for t in transitions]), strict=True):
        likeness = np.where(games == transition.game, -np.inf, theirs @ own)
        best = int(likeness.argmax())
        found.append(candidates[best][0] if likeness[best] > -np.inf else "")
    return found


def _known(transition: Transition) -> str:
    return " ".join([transition.action, transition.task, *(f"{t.action} {t.observation}" for t in transition.history)])
