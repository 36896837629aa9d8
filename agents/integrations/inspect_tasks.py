"""Tasks for Inspect (inspect.aisi.org.uk): its viewer, retries, epochs and limits serve our environments.

    inspect eval rwml_gym/alfworld --model openai/gpt-5-mini -T split=valid_unseen -T games=50
    inspect eval rwml_gym/tau2 --model openai/gpt-5-mini -T domain=retail --epochs 4

A sample is a game of a split, and its id is the game's name, so a repeated sample plays the same game again. The solver
plays the episode as a chat; on τ²-bench the model calls the tools natively. The scorer reads what the environment says:
`won`, the reward, steps, invalid actions, and tau2's checks.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.integrations.dialogue import Dialogue, games_to_play
from rwml_gym.agents.players.base import MakeEnv
from rwml_gym.checks import missing

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageTool, ChatMessageUser, get_model
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import ToolCall, ToolInfo, ToolParams
except ImportError as error:
    raise missing("Inspect", "inspect") from error

__all__ = ["alfworld", "play_game", "success", "tau2", "text_environment"]

# tau2's checks. All samples of a task have the same keys, because Inspect takes the keys of the first one.
_PARTS = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE")
_STORED = "rwml_gym"


@task
def alfworld(
    split: str = "generated_held_out",
    games: int | None = 100,
    max_steps: int | None = None,
    show_actions: bool = True,
    grammar: Literal["installed", "original"] | None = None,
) -> Task:
    """ALFWorld: household tasks in text, one command a turn.

    Args:
        split: `generated_held_out` and `generated` need no data; `valid_seen`, `valid_unseen`, `train` are official.
        games: How many games, a fixed part of the split; all of an official split with `games=null`.
        max_steps: Step budget of an episode; 50 if absent.
        show_actions: Whether each observation ends with the admissible actions.
        grammar: `installed` (if absent) or `original`.
    """
    return text_environment(EnvConfig("alfworld", split=split, grammar=grammar), games, max_steps, show_actions)


@task
def tau2(
    domain: str = "retail",
    split: str = "test",
    games: int | None = None,
    max_steps: int | None = None,
) -> Task:
    """τ²-bench: serve a scripted customer under a policy, with native tool calls.

    Args:
        domain: `airline`, `retail`, `telecom`, `telecom-workflow` or `mock`.
        split: `test`, `train`, or `base`, which publications score on.
        games: How many tasks, a fixed part of the split; all if absent.
        max_steps: Step budget of an episode, in messages and calls; 100 if absent.
    """
    return text_environment(EnvConfig("tau2", domain=domain, split=split), games, max_steps)


def text_environment(
    config: EnvConfig, games: int | None = None, max_steps: int | None = None, show_actions: bool = True
) -> Task:
    """Make an Inspect task from any text environment.

    Args:
        config: Which environment: `alfworld`, `tau2`, `toy`, or a registered id of your own.
        games: How many games; all if absent, or 100 of games without end.
        max_steps: Step budget of an episode; the registered one if absent.
        show_actions: Whether observations of games end with the admissible actions.

    Raises:
        InvalidConfigError: If a value is not allowed.
        DependencyNotInstalled: If the environment needs a library that is not installed.
    """
    source, make_env, names = games_to_play(config, games, max_steps)
    dialogue = Dialogue(make_env(), show_actions)
    samples, versions = [], set()
    for name in names:
        opening = dialogue.start(name)
        versions.add(opening.data_version)
        samples.append(
            Sample(id=str(name), input=opening.user, metadata={"game": name, "task_type": opening.task_type})
        )
    dialogue.close()
    return Task(
        dataset=MemoryDataset(samples, name=source.world.title),
        solver=play_game(make_env, show_actions),
        scorer=success(bool(opening.tools)),
        metadata={"data_version": ", ".join(sorted(versions - {""}))},
    )


@solver
def play_game(make_env: MakeEnv, show_actions: bool = True) -> Solver:
    """Play the sample's game with the model, to its end or to a limit of Inspect.

    Args:
        make_env: Makes a text environment with its step budget.
        show_actions: Whether observations of games end with the admissible actions.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        dialogue = Dialogue(make_env(), show_actions)
        try:
            opening = dialogue.start(state.metadata["game"])
            tools = [_tool(schema["function"]) for schema in opening.tools]
            state.messages = [ChatMessageSystem(content=opening.system), ChatMessageUser(content=opening.user)]
            while not dialogue.over:
                state.output = await model.generate(state.messages, tools=tools)
                message = state.output.message
                state.messages.append(message)
                if message.tool_calls and tools:
                    for call in message.tool_calls:
                        state.messages.append(_answer(dialogue, call))
                else:
                    state.messages.append(ChatMessageUser(content=dialogue.say(message.text)))
                # After each step, because a limit of Inspect may end the episode in the next call of the model.
                state.store.set(_STORED, dialogue.result())
        finally:
            dialogue.close()
        return state

    return solve


@scorer(metrics={"*": [mean(), stderr()]})
def success(service: bool = False) -> Scorer:
    """Score an episode as the environment does: `won` and `reward`, with steps, invalid actions and tau2's checks.

    An episode that a limit of Inspect cut off is not won. Checks are NaN, which Inspect leaves out, until it has ended.

    Args:
        service: Whether the environment reports tau2's checks.
    """

    async def score(state: TaskState, target: Target) -> Score:
        found: dict[str, Any] = state.store.get(_STORED, {})
        steps = found.get("steps", 0)
        value: dict[str, Any] = {
            "won": float(found.get("won", False)),
            "reward": float(found.get("reward", 0.0)),
            "steps": float(steps),
            "invalid_share": found.get("invalid_actions", 0) / steps if steps else 0.0,
        }
        if service:
            parts = found.get("score_parts", {})
            value |= {name.lower(): float(parts.get(name, math.nan)) for name in _PARTS}
        return Score(value=value, explanation=found.get("known_problem") or None, metadata=found)

    return score


def _tool(function: Any) -> ToolInfo:
    """Convert a tool's schema; its definitions are put where they are used, because Inspect's schemas have none."""
    parameters = _resolved(function["parameters"], function["parameters"].get("$defs", {}))
    return ToolInfo(
        name=function["name"],
        description=function["description"],
        parameters=ToolParams.model_validate(
            {"properties": parameters.get("properties", {}), "required": list(parameters.get("required", ()))}
        ),
    )


def _resolved(schema: Any, definitions: Any) -> Any:
    if isinstance(schema, list | tuple):
        return [_resolved(part, definitions) for part in schema]
    if not isinstance(schema, dict) and not hasattr(schema, "items"):
        return schema
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _resolved(part, definitions) for name, part in schema.items() if name != "$defs"}


def _answer(dialogue: Dialogue, call: ToolCall) -> ChatMessageTool:
    """Call the environment's tool; calls after the end of the episode are answered, because models expect it."""
    if dialogue.over:
        result = "The conversation is over."
    else:
        # Unreadable arguments become a text, which the environment rejects as it does any malformed call.
        result = dialogue.call(call.function, call.parse_error or call.arguments)
    return ChatMessageTool(content=result, tool_call_id=call.id, function=call.function)
