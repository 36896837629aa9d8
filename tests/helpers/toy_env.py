"""A toy house in words: deterministic, tiny, and like the package's text environments to the outside."""

from __future__ import annotations

import string
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Text

ROOMS = ("kitchen", "bedroom", "bathroom")
OBJECTS = ("mug", "apple", "book", "soap", "key")
# Every printable character, so that an agent's tags and predictions are inside the space too.
TEXT = string.printable


class ToyHouse(gym.Env[str, str]):
    """Carry one object to one room. Rooms, contents and the task follow from the game, the game from the seed."""

    metadata = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, games: int = 8):
        self.action_space = Text(200, min_length=0, charset=TEXT)
        self.observation_space = Text(500, min_length=0, charset=TEXT)
        self.games = games

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        number = int((options or {}).get("game", self.np_random.integers(self.games)))
        self.game = f"house-{number}"
        # The game alone decides what is where, so that a game is the same whatever came before.
        self.place = {thing: ROOMS[(number * 7 + index * (number + 1)) % 3] for index, thing in enumerate(OBJECTS)}
        self.target = OBJECTS[number % len(OBJECTS)]
        self.goal = next(room for room in ROOMS if room != self.place[self.target])
        self.room = ROOMS[number % 3]
        self.done = False
        return self._describe(), self._info(invalid=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        invalid = action not in self._admissible()
        observation = "Nothing happens." if invalid else self._act(action)
        self.done = self.done or self.place[self.target] == self.goal
        return observation, float(self.done), self.done, False, self._info(invalid)

    def _act(self, action: str) -> str:
        verb, _, rest = action.partition(" ")
        if verb == "go":
            self.room = rest.removeprefix("to ")
            return self._describe()
        if verb == "take":
            self.place[rest] = "hand"
            return f"You pick up the {rest} from the {self.room}."
        if verb == "drop":
            self.place[rest] = self.room
            return f"You put the {rest} down in the {self.room}."
        return self._describe()

    def _describe(self) -> str:
        things = [f"a {thing}" for thing in OBJECTS if self.place[thing] == self.room]
        listed = ", ".join([*things[:-1], f"and {things[-1]}"]) if len(things) > 1 else "".join(things) or "nothing"
        return f"You are in the {self.room}. Here, you see {listed}."

    def _admissible(self) -> list[str]:
        return [
            "look",
            *(f"go to {room}" for room in ROOMS if room != self.room),
            *(f"take {thing}" for thing in OBJECTS if self.place[thing] == self.room),
            *(f"drop {thing}" for thing in OBJECTS if self.place[thing] == "hand"),
        ]

    def _info(self, invalid: bool) -> dict[str, Any]:
        return {
            "task": f"Put the {self.target} into the {self.goal}.",
            "admissible_actions": self._admissible(),
            "won": self.done,
            "invalid_action": invalid,
            "game": self.game,
            "data_version": "toy-1",
        }


gym.register("rwml_gym_tests/ToyHouse-v0", entry_point=f"{__name__}:ToyHouse", max_episode_steps=20)
