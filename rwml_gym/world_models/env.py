"""A learned world model as an environment: an agent plays in what the model predicts.

What an agent learns to do there may do nothing in the real game: a policy has been seen to gain 10.8 points of success
in a model, and none outside. So measure both, and play the imagined actions again in the real game
(`rwml-gym evaluate-world-model`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwml_gym.checks import whole_number
from rwml_gym.envs.base import TextEnv
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import WorldModel, predict_checked, takes_tasks

__all__ = [
    *("MOVES", "TREATMENTS", "Start", "Starts", "Success", "WorldModelEnv"),
    *("confirmed", "says", "task_is_done", "task_words"),
]

Success = Callable[[str, Sequence[Turn]], bool]
"""Recognises success from the task and the turns of an episode, the last one included."""

_WORD = re.compile(r"[a-z]+")
# Words of tasks and answers that name neither a thing, a place nor what is to be done with it.
_FILLERS = frozenset(
    "a an the and it them then to into in on onto of with under from by at some two your you is put place move take "
    "find look drop pick up down goal task".split()
)
# What a task asks for, in the words of the answer that confirms it.
_SAME = {"hot": "heat", "warm": "heat", "cold": "cool", "chilled": "cool", "examine": "", "bulb": "", "light": ""}
TREATMENTS = frozenset(("heat", "cool", "clean"))
"""What a task may ask to be done to a thing before it is put somewhere."""
# The last action of a task; the answer to `go to desk 1` may name all its words, too.
_LAMP = ("use", "toggle", "turn")
_FINAL = ("put", "move", "drop", "place", *_LAMP)
MOVES = ("go", "look", "examine", "inventory", "open", "close")
"""What actions begin with that do nothing to a thing."""


@dataclass(frozen=True)
class Start:
    """How a real game begins.

    Attributes:
        game: Its name, which the real environment knows, too.
        observation: Its first observation.
        task: Its instruction.
        actions: Actions that `info["admissible_actions"]` offers in every step, because the model does not say which
            are admissible; agents that choose among them need some.
        data_version: Version of the game's data.
        task_type: Its task type.
    """

    game: str
    observation: str
    task: str
    actions: tuple[str, ...] = ()
    data_version: str = ""
    task_type: str = ""


class Starts:
    """Starts as the games of an environment (`envs.base.GameSource`).

    Args:
        starts: At least one, of different games.

    Raises:
        InvalidConfigError: If there is none, or two of one game.
    """

    def __init__(self, starts: Sequence[Start]) -> None:
        self._starts = {start.game: start for start in starts}
        if not starts or len(self._starts) < len(starts):
            raise InvalidConfigError(
                f"Expected first observations of at least one game, one of each, actual: {len(starts)} of "
                f"{len(self._starts)} games. Reset the real environment for each game."
            )
        self.names: Sequence[str] = list(self._starts)

    def sample(self, rng: np.random.Generator) -> Start:
        """Draw a start; all are equally likely."""
        return self._starts[self.names[int(rng.integers(len(self.names)))]]

    def load(self, name: str) -> Start:
        """Return the start of a game.

        Raises:
            GameNotFoundError: If no start is of this game.
        """
        if name not in self._starts:
            raise GameNotFoundError(f"Expected a game such as {self.names[0]!r}, actual: {name!r}.")
        return self._starts[name]


class WorldModelEnv(TextEnv[Start]):
    """Plays a world model behind Gymnasium's interface: each observation is the model's prediction.

    An episode begins with the first observation of a real game, and goes on with predictions of what follows, each made
    from the last `history` turns of the episode, so from the model's own earlier predictions. The model is asked for
    texts only; nothing of them is evaluated.

    *Success.* A world model predicts texts, and no reward, so success has to be recognised in them: `success` is a
    function of the task and the turns. `task_is_done` is the default, for tasks such as ALFWorld's and the toy house's;
    `says(text)` is for models whose games say that they are won. Neither is the game's own rule, so measure on real
    episodes how often it is right before you trust a rate of success; the evaluation does. The reward is 1 for the step
    that is recognised, which terminates the episode, and otherwise 0.

    `info` has `task`, `admissible_actions` (those of the start, whatever has happened since), `won`, `game`,
    `data_version` and `task_type`. `turns` holds the episode, to be played again in the real game. Models that learn do
    not learn here.

    Args:
        model: The world model.
        starts: First observations and tasks of real games.
        max_steps: Step budget, after which the episode is truncated.
        success: Recognises success.
        history: Number of turns that the model sees.
        render_mode: `"ansi"` or `None`.
        order: `random` or `each-once`; see `TextEnv`.
        share: The share of a slot with `each-once`; see `TextEnv`.

    Raises:
        InvalidConfigError: If a value is not allowed.

    Example:
        >>> from rwml_gym.world_models.base import NothingChanges
        >>> start = Start("house-0", "You are in the kitchen.", "Put the mug into the bedroom.", ("look",))
        >>> env = WorldModelEnv(NothingChanges(), [start])
        >>> observation, info = env.reset(seed=0)
        >>> env.step("go to bedroom")[0]
        'You are in the kitchen.'
        >>> env.turns[-1].action
        'go to bedroom'
    """

    def __init__(
        self,
        model: WorldModel,
        starts: Sequence[Start],
        max_steps: int = 50,
        success: Success | None = None,
        history: int = 4,
        render_mode: str | None = None,
        order: str = "random",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if not isinstance(model, WorldModel) or isinstance(model, type):
            raise InvalidConfigError(
                f"Expected a world model, an object with `predict`, actual: {model!r}. Make one by its name with "
                "world_models.by_name.make_world_model."
            )
        super().__init__(Starts(starts), render_mode, order, share)
        self.model = model
        self.max_steps = whole_number("max_steps", max_steps, 1)
        self.history = whole_number("history", history, 1, "turns")
        self.success = task_is_done if success is None else success
        self.turns: list[Turn] = []
        self._takes_tasks = takes_tasks(model)

    def _begin(self, game: Start) -> tuple[str, dict[str, Any]]:
        self._start = game
        self.turns = [Turn("", game.observation)]
        return game.observation, self._info(won=False)

    def _act(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        tasks = [self._start.task] if self._takes_tasks else None
        (predicted,) = predict_checked(self.model, [tuple(self.turns[-self.history :])], [action], tasks, text=True)
        if predicted is not None and not isinstance(predicted, str):
            raise InvalidConfigError(
                f"Expected a world model that predicts text, actual: {type(self.model).__name__}, which predicts "
                "vectors. Use another one, such as retrieval."
            )
        observation = predicted or ""
        self.turns.append(Turn(action, observation))
        won = bool(self.success(self._start.task, self.turns))
        truncated = not won and len(self.turns) > self.max_steps
        return observation, float(won), won, truncated, self._info(won)

    def _info(self, won: bool) -> dict[str, Any]:
        return {
            "task": self._start.task,
            "admissible_actions": list(self._start.actions),
            "won": won,
            "game": self._start.game,
            "data_version": self._start.data_version,
            "task_type": self._start.task_type,
        }


def task_is_done(task: str, turns: Sequence[Turn]) -> bool:
    """Recognise success from the words of the task: the last action places or uses its thing, and is confirmed.

    A confirmation is the first sentence of an answer that begins with `You`, as in "You move the mug 1 to the desk 1."
    That of the last action must name all things and places of the task. Heating, cooling and cleaning may be confirmed
    earlier, for one of its things. Where a lamp is used, the other thing must have been taken. Two things of a kind
    need two confirmations.

    >>> turns = [Turn("", "You are in a room."), Turn("move mug 1 to desk 1", "You move the mug 1 to the desk 1.")]
    >>> task_is_done("put some mug on desk.", turns), task_is_done("put a clean mug on desk.", turns)
    (True, False)
    """
    wanted, last = task_words(task), turns[-1]
    things = wanted - TREATMENTS
    if not things or not str(last.action).startswith(_FINAL):
        return False
    named = task_words(confirmed(last))
    earlier = [task_words(confirmed(turn)) for turn in turns[1:-1] if not str(turn.action).startswith(MOVES)]
    if str(last.action).startswith(_LAMP):
        return bool(things & named) and things <= named.union(*earlier)
    if not things <= named:
        return False
    if any(not any(treatment in words and words & things for words in earlier) for treatment in wanted & TREATMENTS):
        return False
    if not re.search(r"\btwo\b", task.lower()):
        return True
    return len({confirmed(turn) for turn in turns[1:] if _is_final(turn) and things <= task_words(confirmed(turn))}) > 1


def says(text: str) -> Success:
    """Return a function that recognises success by a text in the last observation, whatever its case.

    >>> says("you won")("", [Turn("look", "You won!")])
    True
    """
    return lambda task, turns: text.lower() in str(turns[-1].observation).lower()


def _is_final(turn: Turn) -> bool:
    return bool(confirmed(turn)) and str(turn.action).startswith(_FINAL)


def confirmed(turn: Turn) -> str:
    """Return the first sentence of an answer that confirms a deed; empty if it does not."""
    answer = str(turn.observation).strip()
    return re.split(r"[.!\n]", answer)[0] if answer.lower().startswith("you ") else ""


def task_words(text: str) -> set[str]:
    """Return the words that name things, places and deeds, in the singular."""
    found = {_SAME.get(word, word) for word in _WORD.findall(text.lower())}
    return {word.removesuffix("s") for word in found if word and word not in _FILLERS}
