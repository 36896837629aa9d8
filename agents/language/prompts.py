"""Prompts that ask a language model for a prediction or an action, and the parsing of its answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from rwml_gym.errors import InvalidConfigError, PromptTooLongError
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG, split_prediction
from rwml_gym.transitions import Transition, Turn

__all__ = [
    "STYLES",
    "PromptStyle",
    "PromptWorld",
    "Prompts",
    "Tokenizer",
    "special_tokens",
    "without_special_tokens",
    "world_of",
]

PromptStyle = Literal["transcript", "chat"]
STYLES: tuple[PromptStyle, ...] = ("transcript", "chat")

PromptWorld = Literal["game", "service"]
"""Kind of environment: commands in a text game, or a customer service agent that talks and calls tools."""


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


# Additions to the instruction of `act` for thoughts and predictions: in a transcript, in a chat.
_THINK = (
    " Before each command stands a thought.",
    " First write one short sentence beginning with 'Thought:', then a line beginning with 'Action:'.",
)
_FORESEE = (
    f" Behind the command stands the expected answer, between {OPEN_TAG} and {CLOSE_TAG}.",
    f" Behind the action, write the answer you expect, word for word, between {OPEN_TAG} and {CLOSE_TAG}.",
)
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_CUT = "…"
_SENTINELS = ("WHAT-THE-AGENT-WROTE", "WHAT-THE-WORLD-ANSWERED")


class Tokenizer(Protocol):
    """The methods of a `transformers` tokenizer that prompts need."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Return the token ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **kwargs: Any
    ) -> str:
        """Return a conversation in the model's format."""
        ...


def special_tokens(tokenizer: object) -> list[str]:
    """Return the texts of a tokenizer's special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return [str(token) for token in added if token.special and len(str(token)) > 1]


def without_special_tokens(text: str, special: Sequence[str]) -> str:
    """Return a text whose special tokens are neutralised by a space after their first character."""
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def world_of(transitions: Sequence[Transition]) -> PromptWorld:
    """Return the kind of environment that transitions were recorded in: only services have message roles."""
    return "service" if any(transition.role for transition in transitions) else "game"


class Prompts:
    """Builds prompts of one style and reads the model's answers.

    `transcript` shows the episode as a plain transcript without chat template. It suits small and base models, which
    can continue a transcript. `chat` asks an instruction-tuned model in its chat template to reason first and to mark
    its prediction with tags, as the paper does (arXiv 2602.05842).

    Where a chat template has no system role, the instruction stands at the beginning of the first user turn.

    Special tokens inside observations, actions and tasks are neutralised.

    Args:
        tokenizer: The model's tokenizer.
        style: `transcript`, or `chat`, which requires a chat template.
        history: Number of the last turns in a prompt (the paper's window H). At 0 the prompt is the whole episode,
            which grows as one text (`reply`), in `chat` as a conversation.
        max_tokens: Token limit of a prompt. Longer ones lose data: the oldest turns, then the beginning of the last
            observation, then the end of the task, then that of the command to predict. Instruction and template are
            never cut.
        world: `game`, or `service` for conversations with tools such as τ²-bench's.
        max_state: Character limit of a state; a longer one is cut, and the prompt says how many characters are
            missing. 0 for no limit.
        thoughts: Whether the agent writes a thought before each action (ReAct, arXiv 2210.03629).
        predictions: Whether the agent writes the answer that it expects after each action, between the tags that
            `WorldModelRewardWrapper` reads.
        thinking: `enable_thinking` of chat templates that support it (Qwen3's); the template's default if absent. Text
            between `<think>` tags is never part of an action.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        style: PromptStyle = "transcript",
        history: int = 4,
        max_tokens: int = 1024,
        world: PromptWorld = "game",
        max_state: int = 0,
        thoughts: bool = False,
        predictions: bool = False,
        thinking: bool | None = None,
    ) -> None:
        if style not in STYLES:
            raise InvalidConfigError(f"Expected a prompt `style` among {list(STYLES)}, actual: {style!r}.")
        if style == "chat" and not getattr(tokenizer, "chat_template", None):
            raise InvalidConfigError("Expected a chat template for `style` 'chat', actual: none. Use 'transcript'.")
        if world not in _INSTRUCTIONS:
            raise InvalidConfigError(f"Expected a prompt `world` among {list(_INSTRUCTIONS)}, actual: {world!r}.")
        if max_state < 0:
            raise InvalidConfigError(f"Expected `max_state` of at least 0, actual: {max_state}.")
        if history < 0:
            raise InvalidConfigError(f"Expected `history` of at least 1 turn, or 0 for all, actual: {history}.")
        if max_tokens < 1:
            raise InvalidConfigError(f"Expected `max_tokens` of at least 1, actual: {max_tokens}.")
        self.tokenizer, self.style, self.history, self.max_tokens = tokenizer, style, history, max_tokens
        self.world, self.max_state = world, max_state
        self.thoughts, self.predictions, self.thinking = thoughts, predictions, thinking
        self._instructions = _INSTRUCTIONS[world]
        self._cue = "Thought:" if thoughts else ">"
        self._special = special_tokens(tokenizer)
        self._has_system_role = style == "chat" and self._shows_system_messages()

    @property
    def prediction_stop(self) -> tuple[str, ...]:
        """The stop text of a prediction: the next command, or the closing tag."""
        return ("\n>",) if self.style == "transcript" else ("</next_state>",)

    @property
    def action_stop(self) -> tuple[str | re.Pattern[str], ...]:
        """The stop texts of an agent's turn, in addition to the model's end token."""
        if self.style == "chat":
            return (CLOSE_TAG,) if self.predictions else ()
        if not self.thoughts and not self.predictions:
            return ("\n",)
        # The turn ends after the line with the command, or with the closing tag if a prediction begins in that line.
        command = r"\n>[^\n<]*\n" if self.thoughts else r"\A[^\n<]*\n"
        return (re.compile(command), CLOSE_TAG) if self.predictions else (re.compile(command),)

    def predict(self, history: Sequence[Turn], action: str, task: str) -> list[int]:
        """Return the token ids of the prompt that asks for the state after `action`."""
        return self._fit(history, task, action, self._instructions.predict)

    def act(self, history: Sequence[Turn], task: str) -> list[int]:
        """Return the token ids of the prompt that asks for the next action."""
        return self._fit(history, task, None, self._instructions.act + self._extras(1), self._extras(0))

    def reply(self, observation: str, written: Sequence[int]) -> list[int]:
        """Return the token ids that follow the agent's turn if an episode is one text: observation and next cue.

        Args:
            observation: The observation after the action.
            written: Token ids of the agent's turn; if they contain the end token, it is not repeated.
        """
        shown = self.shown(observation)
        if self.style == "transcript":
            ends_line = self.tokenizer.decode(list(written[-4:])).endswith("\n")
            return self._ids(f"{'' if ends_line else chr(10)}{shown}\n{self._cue}")
        before, after = self._between_turns()
        ids = self._ids(f"{before}{shown}{after}")
        end = getattr(self.tokenizer, "eos_token_id", None)
        return ids[1:] if written and end is not None and written[-1] == end == ids[0] else ids

    def action_target(self, action: str, prediction: str | None = None) -> list[int]:
        """Return the token ids with which an agent plays an action, including its end. Prompts with thoughts fail.

        Args:
            action: The action.
            prediction: The expected observation; required if and only if the prompts ask for predictions.
        """
        if self.thoughts or self.predictions != (prediction is not None):
            raise InvalidConfigError(
                "Expected prompts without thoughts that ask for a prediction exactly if one is given, actual: thoughts "
                f"{self.thoughts}, predictions {self.predictions}, given {prediction is not None}. Set thoughts and "
                "predictions to False, or let the agent write freely."
            )
        text = self._data(action)
        if prediction is not None:
            return self._ids(
                f"{' ' * (self.style == 'transcript')}{text} {OPEN_TAG}{self._data(prediction)}{CLOSE_TAG}"
            )
        if self.style == "transcript":
            return self._ids(f" {text}\n")
        end = getattr(self.tokenizer, "eos_token_id", None)
        return [*self._ids(text), *([] if end is None else [end])]

    def target(self, next_state: str) -> list[int]:
        """Return the token ids of a realised state as an SFT target, including its end."""
        if self.style == "transcript":
            return self._ids(f"{self._data(next_state)}\n>")
        return self._ids(f"{OPEN_TAG}{self._data(next_state)}{CLOSE_TAG}")

    def read_prediction(self, text: str) -> str:
        """Return the predicted state in a completion; empty if there is none."""
        if self.style == "transcript":
            return text.split("\n>", 1)[0].strip()
        # Sampling cuts off the stop string, which is the closing tag.
        _, prediction = split_prediction(text + "</next_state>" if "<next_state>" in text else text)
        return (prediction or "").strip()

    def read_action(self, text: str) -> str:
        """Return the action in a completion: its first non-empty line, or the whole chat answer for `service`.

        Thoughts are removed. If the prompts ask for predictions, a prediction stays between its tags. Empty if there
        is no action.
        """
        text = _THOUGHTS.sub("", text)
        if self.thoughts:
            marker = r"(?m)^>" if self.style == "transcript" else r"(?mi)^\s*action:"
            marks = list(re.finditer(marker, text))
            text = text[marks[-1].end() :] if marks else ""
        prediction = None
        if self.predictions:
            text, prediction = split_prediction(text)
        if self.style == "chat" and self.world == "service":
            action = text.strip()
        else:
            action = next((line.strip().removeprefix(">").strip() for line in text.splitlines() if line.strip()), "")
        return f"{action} {OPEN_TAG}{prediction}{CLOSE_TAG}" if prediction else action

    def _extras(self, chat: int) -> str:
        return _THINK[chat] * self.thoughts + _FORESEE[chat] * self.predictions

    def _fit(
        self, history: Sequence[Turn], task: str, command: str | None, instruction: str, transcript_extra: str = ""
    ) -> list[int]:
        turns = list(history)[-self.history :]

        def excess() -> int:
            return len(encode()) - self.max_tokens

        def encode() -> list[int]:
            cue = self._cue if self.style == "transcript" else ""
            last = cue if command is None else f"> {command}\n"
            return self._encode(turns, task, last, instruction, transcript_extra)

        while excess() > 0 and len(turns) > 1:
            del turns[0]
        while turns and turns[0].observation and (over := excess()) > 0:
            turns[0] = replace(turns[0], observation=self._shorter(turns[0].observation, over, from_start=True))
        if excess() > 0:
            turns.clear()
        while task and (over := excess()) > 0:
            task = self._shorter(task, over, from_start=False)
        while command and (over := excess()) > 0:
            command = self._shorter(command, over, from_start=False)
        if (over := excess()) > 0:
            raise PromptTooLongError(
                f"Expected room for instruction and template in {self.max_tokens} tokens, actual: they alone take "
                f"{self.max_tokens + over}. Set max_prompt_tokens (`max_tokens`) to that or more."
            )
        return encode()

    def _shorter(self, text: str, over: int, from_start: bool) -> str:
        """Return a text without so many of its first or last tokens, and with `…` in their place."""
        tokens = self._ids(text.strip(_CUT))
        kept = tokens[over + 1 :] if from_start else tokens[: max(0, len(tokens) - over - 1)]
        words = self.tokenizer.decode(kept).strip("\ufffd")  # a character may be cut in the middle
        if not kept or len(words) >= len(text):
            return ""
        return f"{_CUT}{words}" if from_start else f"{words}{_CUT}"

    def _encode(
        self, turns: Sequence[Turn], task: str, last: str, instruction: str, transcript_extra: str
    ) -> list[int]:
        task, last = self._data(task), self._data(last)
        shown = "".join(
            f"> {self._data(t.action)}\n" * bool(t.action) + f"{self.shown(t.observation)}\n" for t in turns
        )
        if self.style == "transcript":
            instruction = self._instructions.transcript + transcript_extra
            head = f"{instruction}\nTask: {task}\n\n" if task else f"{instruction}\n\n"
            return self._ids(head + shown + last)
        return self._ids(self._render(self._messages(instruction, f"Task: {task}\n\n{shown}{last}".strip())))

    def _messages(self, instruction: str, said: str) -> list[dict[str, str]]:
        if not self._has_system_role:
            return [{"role": "user", "content": f"{instruction}\n\n{said}"}]
        return [{"role": "system", "content": instruction}, {"role": "user", "content": said}]

    def _shows_system_messages(self) -> bool:
        """Return whether the chat template takes a system message, and does not leave it out."""
        from jinja2 import TemplateError  # only where transformers needs it, too

        wrote, answered = _SENTINELS
        try:
            text = self._render([{"role": "system", "content": wrote}, {"role": "user", "content": answered}])
            return wrote in text or answered not in text
        except TemplateError:
            pass
        try:
            self._render([{"role": "user", "content": answered}])
        except TemplateError as error:
            raise InvalidConfigError(
                f"Expected a chat template that renders a user message, actual: {error}. Use the style 'transcript'."
            ) from error
        return False

    def _between_turns(self) -> tuple[str, str]:
        """Return what the chat template puts between an agent's turn and the observation, and after the latter."""
        wrote, answered = _SENTINELS
        turns = ["?", wrote, answered]
        roles = ["user", "assistant", "user"]
        text = self._render([{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)])
        before, _, after = text.rpartition(wrote)[2].partition(answered)
        return before, after

    def _render(self, messages: list[dict[str, str]]) -> str:
        extra = {} if self.thinking is None else {"enable_thinking": self.thinking}
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **extra)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _data(self, text: str) -> str:
        return without_special_tokens(text, self._special)

    def shown(self, state: str) -> str:
        """Return a state as prompts show it: special tokens neutralised, a long one cut."""
        left_out = len(state) - self.max_state
        if not self.max_state or left_out <= 0:
            return self._data(state)
        return f"{self._data(state[: self.max_state])} … [{left_out} more characters]"
