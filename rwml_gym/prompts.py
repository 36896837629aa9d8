"""What a language model is shown, and how its answer is read: for predicting the next state and for acting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rwml_gym.errors import InvalidConfigError
from rwml_gym.predictions import split_prediction
from rwml_gym.transitions import Turn

__all__ = ["STYLES", "PromptStyle", "PromptWorld", "Prompts", "Tokenizer"]

PromptStyle = Literal["transcript", "chat"]
STYLES: tuple[PromptStyle, ...] = ("transcript", "chat")

PromptWorld = Literal["game", "service"]
"""What the transcript is of: commands in a text world, or a customer service agent that talks and calls tools."""


@dataclass(frozen=True)
class _Instructions:
    transcript: str
    predict: str
    act: str


_INSTRUCTIONS: dict[str, _Instructions] = {
    "game": _Instructions(
        "A transcript of a text world. After each command the world answers with what happens.",
        "You predict a text world. Given the transcript so far and the last command, first reason briefly about what "
        "the command does, then write the world's answer, word for word, between <next_state> and </next_state>.",
        "You play in a text world to solve the task. Answer with the next command and nothing else.",
    ),
    "service": _Instructions(
        "A transcript of customer service. After each message of the agent the user answers, after each call the tool.",
        "You predict what a customer service agent will be told. Given the transcript so far and the agent's last "
        "message or tool call, first reason briefly about what it leads to, then write the user's answer or the tool's "
        "result, word for word, between <next_state> and </next_state>.",
        "You are a customer service agent. Answer with one tool call, name(argument='value'), or with a message to the "
        "user, and nothing else.",
    ),
}


class Tokenizer(Protocol):
    """What is needed of a `transformers` tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Token ids of a text."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """A conversation as the model expects it."""
        ...


class Prompts:
    """The prompts of one style.

    `transcript` shows the world as a plain transcript that the model continues, without chat template: it suits small
    and base models, which know how transcripts go on. `chat` asks an instruction-tuned model in its chat template to
    reason first and to mark its prediction with tags, as the paper does (arXiv 2602.05842).

    Args:
        tokenizer: The model's tokenizer.
        style: `transcript` or `chat`.
        history: How many of the last turns are shown (the paper's window H).
        max_tokens: Prompts that are longer lose their oldest turns, then the beginning of what is left.
        world: `game`, or `service` for conversations with tools such as τ²-bench's.
        max_state: Longest state that is shown in full, in characters; of longer ones the beginning is shown, and how
            much is left out. 0 for no limit.

    Raises:
        InvalidConfigError: Unknown style or world, a tokenizer without the chat template that `chat` needs, or no room
            at all.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        style: PromptStyle = "transcript",
        history: int = 4,
        max_tokens: int = 1024,
        world: PromptWorld = "game",
        max_state: int = 0,
    ) -> None:
        if style not in STYLES:
            raise InvalidConfigError(f"Expected a prompt style among {list(STYLES)}, actual {style!r}")
        if style == "chat" and not getattr(tokenizer, "chat_template", None):
            raise InvalidConfigError("Prompt style 'chat' needs a tokenizer with a chat template; use 'transcript'.")
        if world not in _INSTRUCTIONS:
            raise InvalidConfigError(f"Expected a prompt world among {list(_INSTRUCTIONS)}, actual {world!r}")
        if max_state < 0:
            raise InvalidConfigError(f"Expected max_state of at least 0, actual {max_state}")
        if history < 1:
            raise InvalidConfigError(f"Expected a history of at least 1 turn, actual {history}")
        if max_tokens < 1:
            raise InvalidConfigError(f"Expected max_tokens of at least 1, actual {max_tokens}")
        self.tokenizer, self.style, self.history, self.max_tokens = tokenizer, style, history, max_tokens
        self.world, self.max_state = world, max_state
        self._instructions = _INSTRUCTIONS[world]

    @property
    def prediction_stop(self) -> tuple[str, ...]:
        """Where a prediction ends: at the next command, or at the closing tag."""
        return ("\n>",) if self.style == "transcript" else ("</next_state>",)

    @property
    def action_stop(self) -> tuple[str, ...]:
        """Where an action ends."""
        return ("\n",) if self.style == "transcript" else ()

    def predict(self, history: Sequence[Turn], action: str, task: str) -> list[int]:
        """Token ids of the prompt that asks for the state after `action`."""
        return self._fit(history, task, f"> {action}\n", self._instructions.predict)

    def act(self, history: Sequence[Turn], task: str) -> list[int]:
        """Token ids of the prompt that asks for the next action."""
        last = ">" if self.style == "transcript" else ""
        return self._fit(history, task, last, self._instructions.act)

    def target(self, next_state: str) -> list[int]:
        """Token ids that a model fine-tuned on the realised state should answer, its end included."""
        if self.style == "transcript":
            return self.tokenizer.encode(f"{next_state}\n>", add_special_tokens=False)
        return self.tokenizer.encode(f"<next_state>{next_state}</next_state>", add_special_tokens=False)

    def read_prediction(self, text: str) -> str:
        """The predicted state in a completion; empty if there is none."""
        if self.style == "transcript":
            return text.split("\n>", 1)[0].strip()
        # The stop string is cut off with the rest of the completion.
        _, prediction = split_prediction(text + "</next_state>" if "<next_state>" in text else text)
        return (prediction or "").strip()

    def read_action(self, text: str) -> str:
        """The action in a completion: its first line that says something; all of a chat's answer in `service`."""
        if self.style == "chat" and self.world == "service":
            return text.strip()
        return next((line.strip().removeprefix(">").strip() for line in text.splitlines() if line.strip()), "")

    def _fit(self, history: Sequence[Turn], task: str, last: str, instruction: str) -> list[int]:
        turns = list(history)[-self.history :]
        ids = self._encode(turns, task, last, instruction)
        while len(ids) > self.max_tokens and len(turns) > 1:
            turns = turns[1:]
            ids = self._encode(turns, task, last, instruction)
        return ids[-self.max_tokens :]

    def _encode(self, turns: Sequence[Turn], task: str, last: str, instruction: str) -> list[int]:
        shown = "".join(f"> {t.action}\n" * bool(t.action) + f"{self._shown(t.observation)}\n" for t in turns)
        if self.style == "transcript":
            instruction = self._instructions.transcript
            head = f"{instruction}\nTask: {task}\n\n" if task else f"{instruction}\n\n"
            return self.tokenizer.encode(head + shown + last, add_special_tokens=False)
        messages = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": f"Task: {task}\n\n{shown}{last}".strip()},
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _shown(self, state: str) -> str:
        left_out = len(state) - self.max_state
        if not self.max_state or left_out <= 0:
            return state
        return f"{state[: self.max_state]} … [{left_out} more characters]"
