"""A toy house in words: deterministic, tiny, without dependencies. Start an environment of your own from this file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwml_gym.checks import one_of, whole_number
from rwml_gym.envs.base import TextEnv
from rwml_gym.errors import GameNotFoundError, InvalidConfigError

__all__ = ["House", "Houses", "ToyHouseEnv"]

ROOMS = ("kitchen", "bedroom", "bathroom")
OBJECTS = ("mug", "apple", "book", "soap", "key")
# Where five objects are, which of them is wanted, where the player starts, and which of the other rooms is the goal.
COUNT = 3**5 * 5 * 3 * 2
SPLITS = {"train": range(5_832), "held_out": range(5_832, COUNT)}


@dataclass(frozen=True)
class House:
    """One game: carry an object to a room.

    Attributes:
        name: Its name, `house-<number>`.
        places: The room of each object.
        target: The object to carry.
        goal: The room to carry it to.
        start: The room the player starts in.
    """

    name: str
    places: dict[str, str]
    target: str
    goal: str
    start: str


class Houses:
    """The houses of a split. Every number is another house, so that no house is in two splits.

    Args:
        split: `train` or `held_out`.
        games: Number of houses, from the first one of the split on.

    Raises:
        InvalidConfigError: If the split is unknown, or has fewer houses.
    """

    def __init__(self, split: str, games: int) -> None:
        one_of("split", split, SPLITS)
        games = whole_number("games", games, 1)
        if games > len(SPLITS[split]):
            raise InvalidConfigError(f"Expected `games` from 1 to {len(SPLITS[split])}, actual: {games}.")
        self.names: Sequence[str] = [f"house-{number}" for number in SPLITS[split][:games]]

    def sample(self, rng: np.random.Generator) -> House:
        """Draw a house; all are equally likely."""
        return self.load(self.names[int(rng.integers(len(self.names)))])

    def load(self, name: str) -> House:
        """Load a house by its name.

        Raises:
            GameNotFoundError: If no house has this name.
        """
        if name not in self.names:
            raise GameNotFoundError(f"Expected a game such as {self.names[0]!r}, actual: {name!r}.")
        code = int(name.removeprefix("house-")) * 1_103 % COUNT  # neighbours differ in more than one place
        places = {}
        for thing in OBJECTS:
            code, place = divmod(code, 3)
            places[thing] = ROOMS[place]
        code, target = divmod(code, 5)
        goal, start = divmod(code, 3)
        others = [room for room in ROOMS if room != places[OBJECTS[target]]]
        return House(name, places, OBJECTS[target], others[goal], ROOMS[start])


class ToyHouseEnv(TextEnv[House]):
    """Carry one object to one room. The whole house follows from the game.

    Actions: `look`, `go to ROOM`, `take THING`, `drop THING`. Reward: 1 on the action that brings the target to the
    goal, else 0. The registered id truncates after 20 steps.

    Args:
        split: `train` or `held_out`.
        games: Number of houses.
        expert: Whether `info["expert_action"]` holds the next action of a shortest solution.
        render_mode: `"ansi"` or `None`.
        order: `random` or `each-once`; see `TextEnv`.
        share: The share of a slot with `each-once`; see `TextEnv`.

    Example:
        >>> import gymnasium, rwml_gym
        >>> env = gymnasium.make("rwml_gym/ToyHouse-v0")
        >>> observation, info = env.reset(options={"game": "house-0"})
        >>> info["task"]
        'Put the mug into the bedroom.'
        >>> env.step("take mug")[0]
        'You pick up the mug from the kitchen.'
    """

    def __init__(
        self,
        split: str = "train",
        games: int = 64,
        expert: bool = False,
        render_mode: str | None = None,
        order: str = "random",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(Houses(split, games), render_mode, order, share)
        self.expert = expert

    def _begin(self, game: House) -> tuple[str, dict[str, Any]]:
        self.game, self.room, self.places = game, game.start, dict(game.places)
        return self._describe(), self._info(invalid=False)

    def _act(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        invalid = action not in self._admissible()
        observation = "Nothing happens." if invalid else self._change(action)
        return observation, float(self._won()), self._won(), False, self._info(invalid)

    def _change(self, action: str) -> str:
        verb, _, rest = action.partition(" ")
        if verb == "take":
            self.places[rest] = "hand"
            return f"You pick up the {rest} from the {self.room}."
        if verb == "drop":
            self.places[rest] = self.room
            return f"You put the {rest} down in the {self.room}."
        if verb == "go":
            self.room = rest.removeprefix("to ")
        return self._describe()

    def _describe(self) -> str:
        things = [f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}" for thing in OBJECTS if self._here(thing)]
        listed = ", ".join([*things[:-1], f"and {things[-1]}"]) if len(things) > 1 else "".join(things) or "nothing"
        return f"You are in the {self.room}. Here, you see {listed}."

    def _here(self, thing: str) -> bool:
        return self.places[thing] == self.room

    def _won(self) -> bool:
        return self.places[self.game.target] == self.game.goal

    def _admissible(self) -> list[str]:
        return [
            "look",
            *(f"go to {room}" for room in ROOMS if room != self.room),
            *(f"take {thing}" for thing in OBJECTS if self._here(thing)),
            *(f"drop {thing}" for thing in OBJECTS if self.places[thing] == "hand"),
        ]

    def _advice(self) -> str:
        target, place = self.game.target, self.places[self.game.target]
        if self._won():
            return ""
        if place == "hand":
            return f"drop {target}" if self.room == self.game.goal else f"go to {self.game.goal}"
        return f"take {target}" if self._here(target) else f"go to {place}"

    def _info(self, invalid: bool) -> dict[str, Any]:
        advice = {"expert_action": self._advice()} if self.expert else {}
        return {
            "task": f"Put the {self.game.target} into the {self.game.goal}.",
            "admissible_actions": self._admissible(),
            "won": self._won(),
            "invalid_action": invalid,
            "game": self.game.name,
            "data_version": "toy-1",
            **advice,
        }
