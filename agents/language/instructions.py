"""The words of prompts: what a model is asked to do, and what it is told about an episode's task and rules.

The questions of `chat` are those of RWML in meaning (arXiv 2602.05842), in our own words: first reason about what was
learnt so far, then describe the next observation with earlier ones as examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG

__all__ = [
    "EMPTY_THOUGHT",
    "FORESEE",
    "INSTRUCTIONS",
    "JSON_SCHEMA",
    "KNOWN_INFO",
    "THINK",
    "Instructions",
    "PromptWorld",
    "describe_rules",
    "describe_task",
]

PromptWorld = Literal["game", "service"]
"""Kind of environment: commands in a text game, or a customer service agent that talks and calls tools."""


@dataclass(frozen=True)
class Instructions:
    """What a model is asked to do in one kind of environment.

    Attributes:
        transcript: The first line of a transcript, which is continued.
        predict: The question for the next state in a chat.
        act: The question for the next action in a chat.
    """

    transcript: str
    predict: str
    act: str


INSTRUCTIONS: dict[PromptWorld, Instructions] = {
    "game": Instructions(
        "A transcript of a text world. After each command the world answers with what happens.",
        "You are the world model of an agent in a text world: you say what the world will show after its next command. "
        "You are given the agent's task, its last commands with what the world showed after each, and a potential "
        "command. First think, between <think> and </think>: go through the past steps and the current situation, and "
        "sum up what was learnt so far that matters for this command. Then describe the next observation, between "
        f"{OPEN_TAG} and {CLOSE_TAG}. Take the past and current observations as examples of what the world shows.",
        "You play in a text world to solve the task. Answer with the next command and nothing else.",
    ),
    "service": Instructions(
        "A transcript of customer service. After each message of the agent the user answers, after each call the tool.",
        "You are the world model of a customer service agent: you say what it will be told next. You are given the "
        "agent's task, the conversation so far, and a potential message or tool call of the agent. First think, "
        "between <think> and </think>: go through the past steps and the current situation, and sum up what was "
        "learnt so far about the user and his records that matters for this action. Then describe the next response, "
        f"between {OPEN_TAG} and {CLOSE_TAG}: the user's answer to a message, or the tool's result of a call. Take "
        "the past and current responses as examples.",
        "You are a customer service agent. If there is a policy, follow it. In each turn either send the user a "
        "message or make one tool call, not both. Answer with one tool call, name(argument='value'), or with a "
        "message to the user, and nothing else.",
    ),
}
"""The instructions by kind of environment."""

# Additions to an instruction: in a transcript, in a chat.
THINK = (
    " Before each command stands a thought.",
    " First write one short sentence beginning with 'Thought:', then a line beginning with 'Action:'.",
)
"""The agent writes a thought before each action (ReAct)."""
FORESEE = (
    f" Behind the command stands the expected answer, between {OPEN_TAG} and {CLOSE_TAG}.",
    f" Behind the action, describe the answer that you expect, between {OPEN_TAG} and {CLOSE_TAG}. Take earlier "
    "answers as examples.",
)
"""The agent writes its prediction behind each action."""
JSON_SCHEMA = (
    " The last result is written as its JSON schema.",
    " If the response is JSON, give only its schema, in which types stand for the values, such as "
    '{"type": "object", "properties": {"name": {"type": "string"}}}.',
)
"""The answer that is JSON is predicted as its schema."""

KNOWN_INFO = "What the user knows about himself: "
EMPTY_THOUGHT = "<think> </think>\n"
"""The reasoning of a target that has none, as in the paper's next-state SFT."""


def describe_task(info: Mapping[str, Any], show_policy: bool = False) -> str:
    """Return the task of an episode for an agent's prompt, with its tools.

    Args:
        info: The environment's info.
        show_policy: Whether the policy and the whole schemas of the tools are shown, see `describe_rules`; otherwise
            the tools' names and parameters are.
    """
    task = str(info.get("task") or "")
    return "\n".join(filter(None, (task, describe_rules(info) if show_policy else _signatures(info))))


def describe_rules(info: Mapping[str, Any]) -> str:
    """Return the rules that an agent plays by: the environment's policy and the JSON schemas of its tools, one a line.

    Args:
        info: The environment's info; without `policy` and `tools` the text is empty.
    """
    parts = [f"Policy:\n{info['policy']}"] if info.get("policy") else []
    if info.get("tools"):
        parts.append(
            "\n".join(["Tools:", *(json.dumps(tool["function"], ensure_ascii=False) for tool in info["tools"])])
        )
    return "\n".join(parts)


def _signatures(info: Mapping[str, Any]) -> str:
    functions = [tool["function"] for tool in info.get("tools") or ()]
    calls = [f"{f['name']}({', '.join(f['parameters'].get('properties', ()))})" for f in functions]
    return f"Tools: {', '.join(calls)}" if calls else ""
