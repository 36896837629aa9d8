"""A hand-coded expert for ALFWorld: it searches likely places, then takes, treats and puts down objects.

It knows the goal and what an agent sees: the observations and the admissible actions. Its behaviour follows alfworld's
hand-coded expert. In contrast to that one, it uses no facts of the engine, plays both grammars, can act in every state
whatever was played before, and never gives up.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, lru_cache

from rwml_gym.envs.alfworld.engine.game import Goal
from rwml_gym.envs.alfworld.games.rooms import OPENABLE, TREATMENTS, Layout, hiding_places, lamp_stands
from rwml_gym.envs.alfworld.games.tables import place_weight, placeable
from rwml_gym.envs.alfworld.reading import Command, Happening, kind_of, read_command, read_contents, read_happening

__all__ = ["Expert"]

UNLIKELY = 1e-3
"""Weight of a receptacle for objects that alfworld does not place there; the usual receptacles come first."""

_OPENABLE = frozenset(kind.lower() for kind in OPENABLE)
_UNDOES = {"heat": "cool", "cool": "heat"}
"""The earlier treatment that a treatment cancels."""


class Memory:
    """An agent's knowledge of its room, for some types of object.

    Attributes:
        receptacles: All known receptacles; among equally good ones, the earlier ones are visited first.
        here: The receptacles within reach, often several at one place.
        searched: The receptacles whose contents were seen.
        places: For each seen object, a receptacle from which it can be reached.
        held: The object in the agent's hand.
    """

    def __init__(self, kinds: Iterable[str], rng: random.Random) -> None:
        self.receptacles: list[str] = []
        self.here: list[str] = []
        self.searched: set[str] = set()
        self.places: dict[str, str] = {}
        self.held: str | None = None
        self._kinds = frozenset(kinds)
        self._rng = rng
        self._closed: dict[str, bool] = {}
        self._by_kind: dict[str, list[str]] = {}
        self._treatments: dict[str, set[str]] = {}

    def update(self, observation: str, commands: Collection[Command]) -> None:
        """Update the memory from an observation and the admissible commands, which also show what is visible."""
        happening = read_happening(observation)
        if happening is not None:
            self._note(happening)
        self._find_itself(commands)
        self._look_around(observation, commands)

    def is_treated(self, thing: str, verb: str) -> bool:
        """Return whether an object is hot (``heat``), cool or clean."""
        return verb in self._treatments.get(thing, ())

    def effort(self, receptacle: str) -> int:
        """Return the number of steps to reach a receptacle and open it."""
        return (receptacle not in self.here) + self._closed.get(receptacle, False)

    def of_kind(self, kind: str) -> list[str]:
        """Return the receptacles of a type."""
        return self._by_kind.get(kind, [])

    def seen(self, kind: str) -> list[str]:
        """Return the objects of a type that were seen and are still there."""
        return [thing for thing in self.places if kind_of(thing) == kind]

    def _note(self, happening: Happening) -> None:
        verb, thing, place = happening
        if verb == "take":
            self.held = thing
            self.places.pop(thing, None)
        elif verb == "put":
            self.held = None
            if kind_of(thing) in self._kinds:
                self.places[thing] = place
        else:
            treatments = self._treatments.setdefault(thing, set())
            treatments.add(verb)
            treatments.discard(_UNDOES.get(verb, ""))

    def _find_itself(self, commands: Collection[Command]) -> None:
        """Determine which receptacles are here, which of them are closed, and whether the hand is empty."""
        can: dict[str, list[str]] = {verb: [] for verb in ("go", "open", "close", "examine", "take", "put")}
        for verb, thing, _ in commands:
            if verb in can:
                can[verb].append(thing)
        new = [name for name in (*can["go"], *can["open"], *can["close"]) if name not in self._closed]
        self._rng.shuffle(new)
        self.receptacles += new
        for name in new:
            self._closed[name] = kind_of(name) in _OPENABLE
            self._by_kind.setdefault(kind_of(name), []).append(name)
        self.here = [name for name in can["examine"] if name in self._closed]
        self._closed.update((name, name in can["open"]) for name in self.here)
        if can["take"]:
            self.held = None
        elif can["put"]:
            self.held = can["put"][0]
            self.places.pop(self.held, None)

    def _look_around(self, observation: str, commands: Collection[Command]) -> None:
        """Remember visible objects, and forget objects that are no longer visible at their place."""
        if self.held is None:  # commands list everything that can be taken; other objects are useless
            seen_into = [receptacle for receptacle in self.here if not self._closed[receptacle]]
            visible = {thing: place for verb, thing, place in commands if verb == "take"}
        elif contents := read_contents(observation):
            seen_into = [contents.place]
            visible = dict.fromkeys(contents.things, contents.place)
        else:
            seen_into, visible = [], {}
        if self.here:  # a lamp within reach can be used even if it is not visible
            lamps = {thing: self.here[0] for verb, thing, _ in commands if verb == "use"}
            visible = lamps | visible
        self.searched.update(seen_into)
        for thing, place in list(self.places.items()):
            if place in seen_into and thing not in visible:
                del self.places[thing]
        self.places.update((thing, place) for thing, place in visible.items() if kind_of(thing) in self._kinds)


class Expert:
    """Expert that chooses the next action in every state of a game, not always on the shortest way, as it must search.

    It remembers the observations, so call it in every state of an episode, from the first one; any actions may be
    played in between. The same goal, seed and states give the same actions in every process.

    Some official games have no place for some objects, for example a teddy bear. They cannot be won after it is taken.

    Args:
        goal: Goal of the game.
        seed: Seed for the order of receptacles that are equally likely to hold an object.

    Example:
        >>> from rwml_gym.envs.alfworld.engine.engine import Engine
        >>> from rwml_gym.envs.alfworld.games.sources import GeneratedGames
        >>> game = GeneratedGames().load("generated/pick_heat_then_place_in_recep/1")
        >>> engine, expert = Engine(), Expert(game.goal)
        >>> state = engine.start(game.data)
        >>> while not state.won:
        ...     action = expert.act(state.text, state.admissible)
        ...     state = engine.step(action)
        >>> action.split()[0]
        'move'
    """

    def __init__(self, goal: Goal, seed: int | str = 0) -> None:
        self.goal = goal
        self._target, self._receptacle, self._lamp = goal.target.lower(), goal.receptacle.lower(), goal.lamp.lower()
        self._rng = random.Random(seed)
        self._memory = Memory({self._target, self._lamp}, self._rng)
        self._likelihoods: dict[str, dict[str, float]] = {}
        self._refused: set[tuple[str, str]] = set()

    def act(self, observation: str, admissible: Sequence[str]) -> str:
        """Choose an admissible action; call it once in each state.

        Args:
            observation: The last observation.
            admissible: The admissible actions.
        """
        commands = {read_command(command): command for command in admissible}
        self._memory.update(observation, commands)
        for _ in range(2):
            for wish in self._wishes():
                if wish in commands:
                    return commands[wish]
            self._memory.searched.clear()  # the whole search failed, so start over
            self._refused.clear()
        return self._rng.choice(admissible) if admissible else "look"

    def _wishes(self) -> Iterator[Command]:
        """Return commands towards the goal, the best first; inadmissible ones are skipped."""
        held = self._memory.held
        if held is None:
            return self._fetch()
        if kind_of(held) != self._target:
            return self._put_aside(held)
        return self._look_at_in_light() if self._lamp else self._deliver(held)

    def _fetch(self) -> Iterator[Command]:
        memory = self._memory
        delivered = self._delivered()
        wanted = [thing for thing in memory.seen(self._target) if memory.places[thing] != delivered]
        for thing in sorted(wanted, key=lambda thing: memory.effort(memory.places[thing])):
            yield from _at(memory.places[thing], Command("take", thing, memory.places[thing]))
        yield from self._search(self._target)

    def _put_aside(self, held: str) -> Iterator[Command]:
        memory = self._memory
        yield from (Command("put", held, receptacle) for receptacle in memory.here)
        kind = kind_of(held)
        self._refused.update((kind, receptacle) for receptacle in memory.here if not memory.effort(receptacle))
        takers = _takers(kind)
        others = [receptacle for receptacle in memory.receptacles if (kind, receptacle) not in self._refused]
        for receptacle in sorted(others, key=lambda r: (kind_of(r) not in takers, memory.effort(r))):
            yield from _at(receptacle, Command("put", held, receptacle))

    def _look_at_in_light(self) -> Iterator[Command]:
        memory = self._memory
        for lamp in sorted(memory.seen(self._lamp), key=lambda lamp: memory.effort(memory.places[lamp])):
            yield Command("use", lamp)
            yield Command("go", memory.places[lamp])
        yield from self._search(self._lamp)

    def _deliver(self, held: str) -> Iterator[Command]:
        memory = self._memory
        treatment = TREATMENTS.get(self.goal.task_type)
        if treatment is not None and not memory.is_treated(held, treatment.verb):
            for tool in sorted(memory.of_kind(treatment.tool.lower()), key=memory.effort):
                yield Command(treatment.verb, held, tool)
                yield Command("go", tool)
            return
        destinations = memory.of_kind(self._receptacle)
        if delivered := self._delivered():
            destinations = [delivered]
        for receptacle in sorted(destinations, key=memory.effort):
            yield from _at(receptacle, Command("put", held, receptacle))

    def _delivered(self) -> str | None:
        """Return the goal's receptacle that already holds one of two objects: the other must go there, too."""
        if self.goal.count == 1:
            return None
        memory = self._memory
        holding = Counter(memory.places[thing] for thing in memory.seen(self._target))
        some = [receptacle for receptacle in memory.of_kind(self._receptacle) if holding[receptacle]]
        return max(some, key=holding.__getitem__, default=None)

    def _search(self, kind: str) -> Iterator[Command]:
        """Search receptacles in the order of the chance to find the object per step, which is fastest on average."""
        memory = self._memory
        likelihood = self._likelihood(kind)
        unknown = [receptacle for receptacle in memory.receptacles if receptacle not in memory.searched]
        for receptacle in sorted(unknown, key=lambda r: likelihood[r] / (memory.effort(r) or 1), reverse=True):
            yield Command("open", receptacle)
            yield Command("go", receptacle)

    def _likelihood(self, kind: str) -> dict[str, float]:
        """Return the likelihood of each receptacle to hold an object of a type, up to a factor."""
        known = self._likelihoods.get(kind)
        receptacles = self._memory.receptacles
        if known is None or len(known) != len(receptacles):
            counts = Counter(map(kind_of, receptacles))
            weights = _weights(self.goal, kind == self._lamp)
            known = {r: weights.get(kind_of(r), UNLIKELY) / counts[kind_of(r)] for r in receptacles}
            self._likelihoods[kind] = known
        return known


def _at(receptacle: str, command: Command) -> Iterator[Command]:
    """Yield a command at a receptacle, then the commands that make it admissible: open it, and go there."""
    yield command
    yield Command("open", receptacle)
    yield Command("go", receptacle)


@cache
def _takers(kind: str) -> frozenset[str]:
    """Return the types of receptacle for an object of a type, all in lower case as in texts."""
    return frozenset(place.lower() for place, kinds in placeable().items() if kind in map(str.lower, kinds))


@lru_cache(maxsize=1024)
def _weights(goal: Goal, lamp: bool) -> dict[str, float]:
    """Return the weight of each type of receptacle for a goal's target, or for its lamp."""
    everywhere = Layout({kind: "" for kind in placeable()}, ())
    kind, places = goal.target, hiding_places(everywhere, goal)
    if lamp:
        kind, places = goal.lamp, lamp_stands(everywhere, goal.lamp)
    return {place.lower(): place_weight(kind, place) for place in places}
