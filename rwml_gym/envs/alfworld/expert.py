"""A hand-coded expert for ALFWorld: searches where things usually are, takes, treats and puts them.

It knows the goal, and otherwise what an agent sees: the words of the world and the admissible actions. It follows the
hand-coded expert of alfworld in what it does. Unlike that one, it asks the engine for no facts, plays both grammars,
can be asked in every state whatever was played before, and never gives up.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, lru_cache

from rwml_gym.envs.alfworld.engine.game import Goal
from rwml_gym.envs.alfworld.games.rooms import OPENABLE, TREATMENTS, Layout, hiding_places, lamp_stands
from rwml_gym.envs.alfworld.games.tables import place_weight, placeable
from rwml_gym.envs.alfworld.reading import (
    Command,
    Happening,
    kind_of,
    read_command,
    read_contents,
    read_happening,
)

__all__ = ["Expert"]

UNLIKELY = 1e-3
"""How much a receptacle attracts what alfworld does not place there; those that it does place there come first."""

_UNDOES = {"heat": "cool", "cool": "heat"}
"""What a treatment takes away from an object that has had the other one."""


class Memory:
    """What an agent that keeps an eye on some types of object knows of its room.

    Attributes:
        receptacles: all that it has heard of, in the order in which it visits those that are equally good.
        here: those it can reach from where it stands; often there are several at one place.
        searched: those whose contents it has seen.
        places: a receptacle from which each object it has seen can be reached.
        held: the object in its hand.
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
        """Takes in what the world said, and what can be done now, which tells as much about what can be seen."""
        happening = read_happening(observation)
        if happening is not None:
            self._note(happening)
        self._find_itself(commands)
        self._look_around(observation, commands)

    def is_treated(self, thing: str, verb: str) -> bool:
        """Whether an object is hot (``heat``), cool or clean."""
        return verb in self._treatments.get(thing, ())

    def effort(self, receptacle: str) -> int:
        """How many steps it takes to have a receptacle open before one."""
        return (receptacle not in self.here) + self._closed.get(receptacle, False)

    def of_kind(self, kind: str) -> list[str]:
        """The receptacles of a type."""
        return self._by_kind.get(kind, [])

    def seen(self, kind: str) -> list[str]:
        """The objects of a type that were seen and are still there."""
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
        """Sees which receptacles are here, which of them are closed, and whether the hand is empty."""
        can: dict[str, list[str]] = {verb: [] for verb in ("go", "open", "close", "examine", "take", "put")}
        for verb, thing, _ in commands:
            if verb in can:
                can[verb].append(thing)
        new = [name for name in (*can["go"], *can["open"], *can["close"]) if name not in self._closed]
        self._rng.shuffle(new)
        self.receptacles += new
        for name in new:
            self._closed[name] = kind_of(name) in _kinds_in_text().openable
            self._by_kind.setdefault(kind_of(name), []).append(name)
        self.here = [name for name in can["examine"] if name in self._closed]
        self._closed.update((name, name in can["open"]) for name in self.here)
        if can["take"]:
            self.held = None
        elif can["put"]:
            self.held = can["put"][0]
            self.places.pop(self.held, None)

    def _look_around(self, observation: str, commands: Collection[Command]) -> None:
        """Remembers what it sees, and forgets what it does not see any more where it was."""
        if self.held is None:  # whatever can be taken is listed; what cannot be taken is of no use
            seen_into = [receptacle for receptacle in self.here if not self._closed[receptacle]]
            visible = {thing: place for verb, thing, place in commands if verb == "take"}
        elif contents := read_contents(observation):
            seen_into = [contents.place]
            visible = dict.fromkeys(contents.things, contents.place)
        else:
            seen_into, visible = [], {}
        if self.here:  # a lamp can be used wherever it is here, even where it cannot be seen
            lamps = {thing: self.here[0] for verb, thing, _ in commands if verb == "use"}
            visible = lamps | visible
        self.searched.update(seen_into)
        for thing, place in list(self.places.items()):
            if place in seen_into and thing not in visible:
                del self.places[thing]
        self.places.update((thing, place) for thing, place in visible.items() if kind_of(thing) in self._kinds)


class Expert:
    """Says in every state of a game what to do next. Not always the shortest way, as it has to search.

    It remembers what it is shown, so it wants to be asked in every state of an episode, from the first one; what is
    played in between is up to you. The same goal, seed and states give the same actions, in every process.

    Some official games have no place for some things, a teddy bear for one: who has taken it cannot win any more.

    Args:
        goal: what the game asks for.
        seed: orders receptacles that are equally likely to hold what is searched.

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
        """Chooses an admissible action; call it once in each state.

        Args:
            observation: what the world said last.
            admissible: the admissible actions.
        """
        commands = {read_command(command): command for command in admissible}
        self._memory.update(observation, commands)
        for _ in range(2):
            for wish in self._wishes():
                if wish in commands:
                    return commands[wish]
            self._memory.searched.clear()  # everything was searched in vain: start over
            self._refused.clear()
        return self._rng.choice(admissible) if admissible else "look"

    def _wishes(self) -> Iterator[Command]:
        """Commands towards the goal, best first; those that are not admissible are no obstacle."""
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
        takers = _kinds_in_text().takers(kind)
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
        """Where the other object of a task about two has to go: the goal's receptacle that holds one already."""
        if self.goal.count == 1:
            return None
        memory = self._memory
        holding = Counter(memory.places[thing] for thing in memory.seen(self._target))
        some = [receptacle for receptacle in memory.of_kind(self._receptacle) if holding[receptacle]]
        return max(some, key=holding.__getitem__, default=None)

    def _search(self, kind: str) -> Iterator[Command]:
        """Receptacles in the order that finds the object soonest on average: by its chance to be there per step."""
        memory = self._memory
        likelihood = self._likelihood(kind)
        unknown = [receptacle for receptacle in memory.receptacles if receptacle not in memory.searched]
        for receptacle in sorted(unknown, key=lambda r: likelihood[r] / (memory.effort(r) or 1), reverse=True):
            yield Command("open", receptacle)
            yield Command("go", receptacle)

    def _likelihood(self, kind: str) -> dict[str, float]:
        """How likely each receptacle is to hold an object of a type, up to a factor."""
        known = self._likelihoods.get(kind)
        receptacles = self._memory.receptacles
        if known is None or len(known) != len(receptacles):
            counts = Counter(map(kind_of, receptacles))
            weights = _weights(self.goal, kind == self._lamp)
            known = {r: weights.get(kind_of(r), UNLIKELY) / counts[kind_of(r)] for r in receptacles}
            self._likelihoods[kind] = known
        return known


def _at(receptacle: str, command: Command) -> Iterator[Command]:
    """A command before a receptacle, or what makes it admissible: the receptacle has to be here, and open."""
    yield command
    yield Command("open", receptacle)
    yield Command("go", receptacle)


class _Kinds:
    """Types of receptacle as texts have them, in lower case."""

    def __init__(self) -> None:
        self.openable = frozenset(kind.lower() for kind in OPENABLE)
        self._takes = {place.lower(): frozenset(map(str.lower, kinds)) for place, kinds in placeable().items()}

    def takers(self, kind: str) -> frozenset[str]:
        """Those into which an object of a type can be put."""
        return frozenset(place for place, kinds in self._takes.items() if kind in kinds)


@cache
def _kinds_in_text() -> _Kinds:
    return _Kinds()


@lru_cache(maxsize=1024)
def _weights(goal: Goal, lamp: bool) -> dict[str, float]:
    """How much each type of receptacle attracts the target of a goal, or its lamp."""
    everywhere = Layout({kind: "" for kind in placeable()}, ())
    kind, places = goal.target, hiding_places(everywhere, goal)
    if lamp:
        kind, places = goal.lamp, lamp_stands(everywhere, goal.lamp)
    return {place.lower(): place_weight(kind, place) for place in places}
