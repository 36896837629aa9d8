"""Environments for verifiers (0.4, `verifiers.v1`), on which prime-rl trains.

    vf-eval rwml-gym-verifiers --env.taskset.env alfworld --env.taskset.games 50 -m openai/gpt-5-mini --no-push

In Python::

    env = load_environment(env="tau2", domain="retail", split="train")

Version 0.4 has no `MultiTurnEnv` any more: a taskset yields the games, and an `Env` plays one of them against an agent.
The environment runs in this process, and so does the agent's chat loop, `ChatHarness`: each of its turns is one request
to verifiers' endpoint, which records tokens and log-probabilities for the training. No sandbox is needed, because the
model cannot run anything. On τ²-bench the model calls the tools natively.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.integrations.dialogue import Dialogue, games_to_play
from rwml_gym.checks import missing

try:
    import openai
    import verifiers.v1 as vf
    from verifiers.v1.dialects.chat import message_to_wire
except ImportError as error:
    raise missing("verifiers", "verifiers") from error

__all__ = [
    "ChatHarness",
    "TextEnvironment",
    "TextEnvironmentConfig",
    "TextTasks",
    "TextTasksConfig",
    "load_environment",
]

TASKSET = "rwml-gym-verifiers"
"""The name by which verifiers and prime-rl find these classes: that of the top-level module `rwml_gym_verifiers`."""


class TextTasksConfig(vf.TasksetConfig):
    """Which games are played.

    Attributes:
        env: `alfworld`, `tau2`, `toy`, or a registered Gymnasium id of a text environment.
        split: Games of the environment; its evaluation split if absent, so give `train` or `generated` for a training.
        domain: Domain of τ²-bench.
        env_arguments: Further arguments of the environment, a mapping as JSON or YAML.
        games: How many games, a fixed part of the split; all if absent, or 100 of games without end.
        max_steps: Step budget of an episode; the registered one if absent.
        show_actions: Whether observations of games end with the admissible actions.
    """

    id: vf.ID = TASKSET
    env: str = "alfworld"
    split: str | None = None
    domain: str | None = None
    env_arguments: str | None = None
    games: int | None = None
    max_steps: int | None = None
    show_actions: bool = True

    def source(self) -> EnvConfig:
        """Return the configuration of the environment as this package's other jobs have it."""
        return EnvConfig(self.env, env_arguments=self.env_arguments, split=self.split, domain=self.domain)


class TextData(vf.TaskData):
    """A game as data: its name (or seed), and the schemas of its tools."""

    game: str | int
    tools: tuple[dict[str, Any], ...] = ()


class TextTask(vf.Task[TextData, vf.State, vf.TaskConfig]):
    """A game; its identity is its name."""

    @property
    def key(self) -> str:
        """The name of the game."""
        return str(self.data.game)


class TextTasks(vf.Taskset[TextTask, TextTasksConfig]):
    """The games of a split, each with what the model is told first.

    Raises:
        InvalidConfigError: If a value of the configuration is not allowed.
        DependencyNotInstalled: If the environment needs a library that is not installed.
    """

    def load(self) -> Iterator[TextTask]:
        """Yield the games (`vf.Taskset.load`)."""
        config = self.config
        _, make_env, games = games_to_play(config.source(), config.games, config.max_steps)
        dialogue = Dialogue(make_env(), config.show_actions)
        try:
            for game in games:
                opening = dialogue.start(game)
                tools = tuple(json.loads(json.dumps(schema)) for schema in opening.tools)
                data = TextData(
                    name=str(game), prompt=opening.user, system_prompt=opening.system, game=game, tools=tools
                )
                yield TextTask(data, config.task)
        finally:
            dialogue.close()


class ChatHarness(vf.Harness[vf.HarnessConfig]):
    """The agent's chat loop, in this process: one request a turn, with the game's tools.

    The tools are the environment's, which answers the calls; this harness runs nothing.
    """

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask the model for one turn (`vf.Harness.launch`); a failed request is the result of a failed program."""
        system, prompt = self.resolve_prompt(data)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or ()]
        request: dict[str, Any] = {"model": ctx.model, "messages": messages}
        if tools := list(getattr(data, "tools", ())):
            request["tools"] = tools
        async with openai.AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0) as client:
            try:
                await client.chat.completions.create(**request)
            except openai.OpenAIError as error:  # a limit of the rollout, too, which verifiers then knows
                return vf.ProgramResult(1, "", f"{type(error).__name__}: {error}")
        return vf.ProgramResult(0, "", "")


class TextEnvironmentConfig(vf.EnvConfig):
    """Who plays: one agent, whose program runs in this process."""

    taskset: vf.TasksetConfig = TextTasksConfig()
    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class TextEnvironment(vf.Env[TextEnvironmentConfig]):
    """Plays a game against the agent; the reward is the environment's.

    The metrics of a trace are `won`, `steps`, `invalid_actions` and, on τ²-bench, its checks (`db`, `action`, …).
    """

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        """Play one episode (`vf.Env.run`)."""
        config = self.taskset.config
        _, make_env, _ = games_to_play(config.source(), 1, config.max_steps)
        dialogue = Dialogue(make_env(), config.show_actions)
        try:
            dialogue.start(task.data.game)
            async with agents.agent.interaction(task) as interaction:
                segment = await interaction.turn()
                while not segment.terminated:
                    answers = _answers(dialogue, segment)
                    if dialogue.over:
                        break
                    segment = await interaction.turn(answers)
            result = dialogue.result()
        finally:
            dialogue.close()
        trace = interaction.trace
        trace.record_reward("reward", result["reward"])
        for name in ("won", "steps", "invalid_actions"):
            trace.record_metric(name, float(result[name]))
        trace.record_metrics({name.lower(): float(value) for name, value in result["score_parts"].items()})
        trace.info["rwml_gym"] = {name: result[name] for name in ("game", "data_version", "known_problem")}


def load_environment(
    env: str = "alfworld",
    split: str | None = None,
    domain: str | None = None,
    games: int | None = None,
    max_steps: int | None = None,
    show_actions: bool = True,
    env_arguments: str | None = None,
) -> TextEnvironment:
    """Return a verifiers environment of the games of a split.

    Args:
        env: `alfworld`, `tau2`, `toy`, or a registered Gymnasium id of a text environment.
        split: Games of the environment; its evaluation split if absent.
        domain: Domain of τ²-bench.
        games: How many games; all if absent, or 100 of games without end.
        max_steps: Step budget of an episode; the registered one if absent.
        show_actions: Whether observations of games end with the admissible actions.
        env_arguments: Further arguments of the environment, a mapping as JSON or YAML.

    Raises:
        InvalidConfigError: If a value is not allowed.
        DependencyNotInstalled: If the environment needs a library that is not installed.
    """
    tasks = TextTasksConfig(
        env=env,
        split=split,
        domain=domain,
        games=games,
        max_steps=max_steps,
        show_actions=show_actions,
        env_arguments=env_arguments,
    )
    games_to_play(tasks.source(), games, max_steps)  # raises for bad input, before verifiers starts anything
    return TextEnvironment(TextEnvironmentConfig(taskset=tasks))


def _answers(dialogue: Dialogue, segment: vf.Segment) -> list[dict[str, Any]]:
    """Play the model's turn, and return the messages that answer it."""
    message = next((m for m in reversed(segment.messages) if isinstance(m, vf.AssistantMessage)), None)
    if message is None or not message.tool_calls:
        return [{"role": "user", "content": dialogue.say((message.content if message else "") or "")}]
    answers = []
    for call in message.tool_calls:
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError:
            arguments = call.arguments  # a text, which the environment rejects as it does any malformed call
        result = "The conversation is over." if dialogue.over else dialogue.call(call.name, arguments)
        answers.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return answers
