"""`rwml-gym play`: a person plays in the terminal, and sees what a model expected after each action."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import tyro

from rwml_gym.agents.config.base import EnvConfig, ModelConfig, nearest
from rwml_gym.agents.language.instructions import PromptWorld, describe_rules
from rwml_gym.agents.language.prompts import PromptStyle
from rwml_gym.agents.ranges import at_least, used_only_with
from rwml_gym.encoders.cached import DEFAULT_ENCODER
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, TOOL_ROLE, GapName
from rwml_gym.reward.gap import GapReward
from rwml_gym.terminal import say
from rwml_gym.text import printable
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import OnlineWorldModel, WorldModel, predict_checked, takes_tasks
from rwml_gym.world_models.by_name import ENCODING, WORLD_MODELS, make_world_model

__all__ = ["PlayCommand", "play"]

_VECTORS = "learned"  # predicts vectors, which nobody can read
_OF_MODEL = ("adapter", "prompt_style", "max_new_tokens")
_HELP = "`?` lists what you can do, `??` shows policy and tools, Tab completes, Ctrl-D or `quit` ends the game."


@dataclass(frozen=True)
class PlayCommand(EnvConfig):
    """Play a game in the terminal. With --predict, see after each action what a model expected, and the gap.

    Commands may come from a pipe, one a line.

    Attributes:
        game: Name of the game (`rwml-gym games list`); drawn with the seed if absent.
        seed: Seed of the choice of the game.
        max_steps: Step budget; the registered one if absent.
        predict: Who predicts: `nothing-changes`, `most-frequent` or `retrieval`, which learn while you play, or a
            language model's name or folder.
        adapter: Folder of a LoRA adapter for the language model.
        gap: How predictions are compared: `cosine`, `entities`, `rouge` or `exact`. Results of tools are compared by
            ROUGE, if you do not choose.
        threshold: τ_d, below which a prediction is right; the gap's default if absent.
        encoder: Encoder of the cosine and of `retrieval`: a name or a folder, `hashing` needs nothing.
        history: Turns that the model sees.
        prompt_style: `transcript` or `chat`, for a language model.
        max_new_tokens: Token limit of a prediction.
    """

    game: str | None = None
    seed: int = 0
    max_steps: int | None = None
    predict: str | None = None
    adapter: str | None = None
    gap: GapName | None = None
    threshold: float | None = None
    encoder: str = DEFAULT_ENCODER
    history: int = 4
    prompt_style: PromptStyle = "transcript"
    max_new_tokens: int = 96


def play(words: Sequence[str]) -> int:
    """Run `rwml-gym play` with the words after it."""
    command = tyro.cli(PlayCommand, args=words, prog="rwml-gym play")
    _check(command)
    from rwml_gym.agents.runs.worlds import Source

    source = Source(command)
    critic = None if command.predict is None else _critic(command, source.world.prompt_world, source.world.roles)
    with source.make(command.max_steps, source.world.split)() as env:
        if command.game is None:
            observation, info = env.reset(seed=command.seed)
        else:
            observation, info = env.reset(options={"game": command.game})
        game = _Game(env, observation, info, critic)
        try:
            game.run()
        finally:  # after Ctrl-C, too
            game.summarise()
    return 0


def _check(command: PlayCommand) -> None:
    """Check what concerns several options, before anything is loaded."""
    at_least(command, 0, "seed")
    at_least(command, 1, "max_steps", "history", "max_new_tokens")
    if command.predict is None:
        names = (*_OF_MODEL, "history", "gap", "threshold", "encoder")
        used_only_with("--predict", command, names, "add a model, for example --predict nothing-changes")
    elif command.predict == _VECTORS:
        raise InvalidConfigError(
            f"Expected a model that predicts text, actual: {command.predict!r}, which predicts vectors. Choose "
            f"{', '.join(name for name in WORLD_MODELS if name != _VECTORS)}, or a language model."
        )
    elif command.predict in WORLD_MODELS:
        used_only_with("a language model", command, _OF_MODEL, "name the language model with --predict")
    elif command.predict not in WORLD_MODELS and not Path(command.predict).exists():
        if hint := nearest(command.predict, WORLD_MODELS):
            raise InvalidConfigError(
                f"Expected a world model among {sorted(WORLD_MODELS)} or a language model, actual: "
                f"{command.predict!r}.{hint}"
            )
    if (
        command.predict is not None
        and not DISTANCES[command.gap or "cosine"].encodes
        and command.predict not in ENCODING
    ):
        used_only_with("--gap cosine or entities", command, ["encoder"])


@dataclass
class _Critic:
    """Predicts each answer before it is known, and compares.

    Attributes:
        model: Who predicts.
        gap: How it is compared.
        history: Turns that the model sees.
        rewards: Rewards so far.
        distances: Gaps so far.
    """

    model: WorldModel
    gap: GapReward
    history: int
    rewards: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)

    def predict(self, turns: Sequence[Turn], action: str, task: str) -> str:
        tasks = [task] if takes_tasks(self.model) else None
        (prediction,) = predict_checked(self.model, [turns[-self.history :]], [action], tasks, text=True)
        return prediction or ""

    def judge(self, turns: Sequence[Turn], action: str, prediction: str, answer: str, role: str) -> str:
        """Compare a prediction with the answer, let the model learn, and say in words how near it was."""
        found = self.gap([prediction], [answer], [role])
        distance, reward = float(found.distances[0]), float(found.rewards[0])
        if isinstance(self.model, OnlineWorldModel):
            self.model.learn([turns[-self.history :]], [action], [answer])
        if not prediction:
            return "  predicted: nothing"
        self.rewards.append(reward)
        self.distances.append(distance)
        encoder = getattr(self.gap.encoder, "name", "")
        how = self.gap.measure(role).described(encoder)
        shown = prediction.replace("\n", "\n             ")
        return f"  predicted: {shown}\n  gap {distance:.3f} ({how}): {'right' if reward > 0 else 'wrong'}"


def _critic(command: PlayCommand, world: PromptWorld, roles: bool) -> _Critic:
    name = command.predict
    assert name is not None
    gap = command.gap or "cosine"
    measures = {TOOL_ROLE: {"gap": "rouge"}} if roles and command.gap is None else {}
    encodes = DISTANCES[gap].encodes or name in ENCODING
    reward = GapReward(command.encoder if encodes else "hashing", command.threshold, measures=measures, gap=gap)
    if name in WORLD_MODELS:
        return _Critic(
            make_world_model(name, reward.encoder if name in ENCODING else "hashing"), reward, command.history
        )
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.language.world_model import LanguageWorldModel

    config = ModelConfig(model=name, prompt_style=command.prompt_style, history=command.history)
    base, tokenizer = load_model(name, config.dtype)
    prompts = config.make_prompts(tokenizer, world)
    adapted = base if command.adapter is None else load_adapter(base, command.adapter)
    return _Critic(LanguageWorldModel(adapted, tokenizer, prompts, command.max_new_tokens), reward, command.history)


class _Game:
    """A game at the terminal: reads commands, plays them, and counts."""

    def __init__(self, env: gym.Env[str, str], observation: str, info: dict[str, Any], critic: _Critic | None) -> None:
        self.env, self.info, self.critic = env, info, critic
        self.turns = [Turn("", observation)]
        self.over, self.steps, self.invalid, self.reward = False, 0, 0, 0.0
        self.read = _reader(self.completions)

    def run(self) -> None:
        """Play until the game is over, or the person leaves."""
        task, observation = str(self.info.get("task") or ""), self.turns[0].observation
        if named := self.info.get("game"):
            say(f"Game: {named}")
        if task and task not in observation:
            say(f"Task: {task}")
        say(f"{_HELP}\n\n{observation}")
        while not self.over:
            line = self.read()
            if line is None or line in ("quit", "exit"):
                return
            if line in ("?", "??"):
                say(describe_rules(self.info) or "There are no rules to show." if line == "??" else self._choices())
            elif line:
                self._step(line)

    def summarise(self) -> None:
        """Say how it ended."""
        ended = "won" if self.info.get("won") else "not won" if self.over else "left before its end"
        say(f"\nThe game was {ended}: {self.steps} steps, {self.invalid} invalid, reward {self.reward:g}.")
        if parts := self.info.get("score_parts"):
            say("Checks: " + ", ".join(f"{name} {value:g}" for name, value in parts.items()))
        if self.critic is not None and self.critic.rewards:
            right, count = sum(reward > 0 for reward in self.critic.rewards), len(self.critic.rewards)
            mean = sum(self.critic.distances) / count
            say(f"Predictions: {right} of {count} right, mean gap {mean:.3f}.")

    def completions(self) -> list[str]:
        """What Tab completes: the admissible actions, else the calls of tools."""
        actions = list(admissible_actions(self.info))
        actions = actions or [f"{tool['function']['name']}(" for tool in self.info.get("tools") or ()]
        # The terminal draws completions itself, so only what cannot control it is offered.
        return [action for action in actions if printable(action) == action and "\n" not in action]

    def _choices(self) -> str:
        if actions := admissible_actions(self.info):
            return "\n".join(f"  {action}" for action in actions)
        functions = [tool["function"] for tool in self.info.get("tools") or ()]
        calls = [f"  {f['name']}({', '.join(f['parameters'].get('properties', ()))})" for f in functions]
        return "\n".join(["  a message to the user, or a call:", *calls] if calls else ["  The game does not say."])

    def _step(self, action: str) -> None:
        task = str(self.info.get("task") or "")
        prediction = "" if self.critic is None else self.critic.predict(self.turns, action, task)
        observation, reward, terminated, truncated, self.info = self.env.step(action)
        say(observation)
        if self.critic is not None:
            role = str(self.info.get("message_role") or "")
            say(self.critic.judge(self.turns, action, prediction, observation, role))
        self.turns.append(Turn(action, observation))
        self.steps += 1
        self.invalid += bool(self.info.get("invalid_action"))
        self.reward += float(reward)
        self.over = terminated or truncated


def _reader(completions: Callable[[], list[str]]) -> Callable[[], str | None]:
    """Return a function that reads the next command, stripped; `None` at the end of the input.

    At a terminal, it has a history and completes with Tab. From a pipe, commands are printed as they are read, so that
    what is written is the whole game.
    """
    if not sys.stdin.isatty():

        def from_pipe() -> str | None:
            line = sys.stdin.readline()
            if not line:
                return None
            say(f"> {line.strip()}")
            return line.strip()

        return from_pipe
    try:
        import readline
    except ImportError:  # Windows
        pass
    else:
        readline.set_completer_delims("\n")  # an action has blanks
        readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")

        def complete(text: str, state: int) -> str | None:
            fitting = [action for action in completions() if action.startswith(text.lstrip())]
            return fitting[state] if state < len(fitting) else None

        readline.set_completer(complete)

    def from_terminal() -> str | None:
        try:
            return input("> ").strip()
        except EOFError:
            say()
            return None

    return from_terminal
