"""An episode as a chat, for frameworks that talk to models in messages: Inspect, verifiers, TRL's tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.evaluation.panel import choose
from rwml_gym.agents.runs.worlds import GameName, Source
from rwml_gym.envs.base import admissible_actions
from rwml_gym.envs.tau2.actions import without_thoughts
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG

__all__ = ["Dialogue", "Opening", "games_to_play", "read_command"]

_GAME = (
    "You play in a text world to solve the task. Answer each observation with the next command and nothing else; the "
    "first line of your answer is taken as the command."
)
_SERVICE = (
    "You are a customer service agent. Follow the policy. In each turn either send the user a message or call a tool, "
    "not both: what is written beside a call is not sent. When there is nothing left to do for the user, call `done`."
)


@dataclass(frozen=True)
class Opening:
    """What a model is told before its first turn.

    Attributes:
        system: The instruction, with the policy where there is one.
        user: The first observation, after the task where the observation does not tell it.
        tools: JSON schemas of the tools in OpenAI's form; empty in games of commands.
        task_type: Task type of the game, or its domain.
        data_version: Version of the game's data.
    """

    system: str
    user: str
    tools: tuple[Mapping[str, Any], ...] = ()
    task_type: str = ""
    data_version: str = ""


@dataclass
class Dialogue:
    """One episode of a text environment, played by messages and calls of tools.

    A game of commands takes the first line of each message (`say`). A service such as τ²-bench takes messages to the
    user (`say`) and calls of its tools (`call`). What a model writes is data: the environment reads it, nothing is
    evaluated.

    Attributes:
        env: The environment with its step budget; `close` closes it.
        show_actions: Whether observations of games end with the admissible actions. A chat model that was never trained
            on a game cannot know its commands otherwise.
        over: Whether the episode has ended, or none has begun.
        reward: Sum of the task rewards so far.
        steps: Number of actions so far.
        invalid: How many of them the environment rejected.
        info: The last info.
        gaps: Rewards of the predictions so far; empty without `WorldModelRewardWrapper`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> dialogue = Dialogue(ToyHouseEnv(), show_actions=False)
        >>> dialogue.start("house-0").user.splitlines()[0]
        'Task: Put the mug into the bedroom.'
        >>> dialogue.say("take mug")
        'You pick up the mug from the kitchen.'
        >>> dialogue.result()["steps"]
        1
    """

    env: gym.Env[str, str]
    show_actions: bool = True
    over: bool = True
    reward: float = 0.0
    steps: int = 0
    invalid: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)

    def start(self, game: GameName) -> Opening:
        """Start a game by its name, or an episode by its seed; return what the model is told first.

        Raises:
            GameNotFoundError: If no game has this name.
        """
        if isinstance(game, str):
            observation, self.info = self.env.reset(options={"game": game})
        else:
            observation, self.info = self.env.reset(seed=game)
        self.over, self.reward, self.steps, self.invalid, self.gaps = False, 0.0, 0, 0, []
        tools = tuple(self.info.get("tools") or ())
        system = _SERVICE if tools else _GAME
        if self.info.get("policy"):
            system = f"{system}\n\n{self.info['policy']}"
        task = str(self.info.get("task") or "")
        if tools or not task or task in observation:
            told = ""
        else:
            told = f"Task: {task}\n\n"
        shown = self._messages(observation) if tools else f"{told}{self._shown(observation)}"
        kind = str(self.info.get("task_type") or self.info.get("domain") or "")
        return Opening(system, shown, tools, kind, str(self.info.get("data_version") or ""))

    def say(self, text: str, prediction: str = "") -> str:
        """Send a message to the user, or play the command in the first line of a text; return the answer.

        Args:
            text: What the model wrote. In a service, a call in words such as `get_users()` is a call, too.
            prediction: The answer that the model expects, for `WorldModelRewardWrapper`.
        """
        service = bool(self.info.get("tools"))
        action = without_thoughts(text) if service else read_command(text)
        observation = self._step(f"{action} {OPEN_TAG}{prediction}{CLOSE_TAG}" if prediction else action)
        return self._messages(observation) if service else self._shown(observation)

    def call(self, name: str, arguments: Any) -> str:
        """Call a tool; return its result.

        Args:
            name: Name of the tool; one that does not exist is an error message, and counts as an invalid action.
            arguments: An object with the arguments; anything else is an error message, too.
        """
        return self._messages(self._step(json.dumps({"name": name, "arguments": arguments}, default=str)))

    def result(self) -> dict[str, Any]:
        """Return how the episode stands as plain data: whether it was won, its reward, steps and score parts."""
        return {
            "won": bool(self.info.get("won")),
            "reward": self.reward,
            "steps": self.steps,
            "invalid_actions": self.invalid,
            "over": self.over,
            "score_parts": dict(self.info.get("score_parts") or {}),
            "game": str(self.info.get("game") or ""),
            "data_version": str(self.info.get("data_version") or ""),
            "known_problem": str(self.info.get("known_problem") or ""),
        }

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
        self.over = True

    def _step(self, action: str) -> str:
        observation, reward, terminated, truncated, self.info = self.env.step(action)
        self.over = terminated or truncated
        predicted = self.info.get("world_model")
        self.reward += float(reward) if predicted is None else predicted["task_reward"]
        if predicted is not None:
            self.gaps.append(float(predicted["reward"]))
        self.steps += 1
        self.invalid += bool(self.info.get("invalid_action"))
        return observation

    def _shown(self, observation: str) -> str:
        actions = admissible_actions(self.info)
        if not self.show_actions or not actions or self.over:
            return observation
        return f"{observation}\n\nYou can: {', '.join(actions)}"

    def _messages(self, observation: str) -> str:
        """Return the contents of the new messages; their roles are those of the framework's messages."""
        return "\n".join(str(m["content"]) for m in self.info.get("messages") or ()) or observation


def read_command(text: str) -> str:
    r"""Return the command in a model's answer: its first non-empty line, without thoughts and a leading `>`.

    >>> read_command("<think>Where is it?</think>\n> go to desk 1\nThen I look.")
    'go to desk 1'
    """
    lines = (line.strip().removeprefix(">").strip() for line in without_thoughts(text).splitlines())
    return next(filter(None, lines), "")


def games_to_play(config: EnvConfig, games: int | None, max_steps: int | None) -> tuple[Source, Any, list[GameName]]:
    """Find the environment of a configuration and games of its split, see `evaluation.panel.choose`.

    Args:
        config: Which environment.
        games: How many games; all of them if absent, or 100 of games without end.
        max_steps: Step budget of an episode; the registered one if absent.

    Returns:
        The source, a function that makes the environment, and the names of the games.

    Raises:
        InvalidConfigError: If a value is not allowed.
        DependencyNotInstalled: If the environment needs a library that is not installed.
    """
    for name, value in (("games", games), ("max_steps", max_steps)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InvalidConfigError(
                f"Expected `{name}` of at least 1, actual: {value!r}. Leave it out for the default."
            )
    source = Source(config)
    make_env = source.make(max_steps, source.world.evaluation_split)
    with make_env() as env:
        return source, make_env, list(choose(env, games))
