"""Prompts that ask a language model for a prediction or an action, and the parsing of its answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Protocol

from rwml_gym.agents.language.instructions import (
    EMPTY_THOUGHT,
    FORESEE,
    INSTRUCTIONS,
    JSON_SCHEMA,
    KNOWN_INFO,
    THINK,
    PromptWorld,
)
from rwml_gym.agents.language.thoughts import OPEN_THOUGHT, blanked, stop_outside, without_thoughts
from rwml_gym.errors import InvalidConfigError, PromptTooLongError
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG, prediction_span, split_prediction
from rwml_gym.transitions import Transition, Turn

__all__ = [
    "STYLES",
    "PromptStyle",
    "Prompts",
    "Tokenizer",
    "special_tokens",
    "without_special_tokens",
    "world_of",
]

PromptStyle = Literal["transcript", "chat"]
STYLES: tuple[PromptStyle, ...] = ("transcript", "chat")

_COMMAND = re.compile(r"(?m)^( *>)")
_QUOTED = re.compile(r"(?m)^ ( *>)")
_CUT = "…"
_HALF = "\ufffd"  # where a cut divides a character
_UNEVEN = 8  # tokens by which the length of a cut text may be uneven
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
    its prediction with tags, as the paper does (arXiv 2602.05842); `language.instructions` has the words.

    Where a chat template has no system role, the instruction stands at the beginning of the first user turn.

    A prompt that is too long loses data before it is rendered: the oldest turns, then the beginning of the last
    observation, with `…` in its place. Template, instruction, task, rules (policy and tools), what the user knows and
    the command to predict are never cut: without a part of them the question is another one. If they alone do not fit,
    a `PromptTooLongError` says how many tokens they need.

    Special tokens inside observations, actions and tasks are neutralised.

    Args:
        tokenizer: The model's tokenizer.
        style: `transcript`, or `chat`, which requires a chat template.
        history: Number of the last turns in a prompt (the paper's window H). At 0 the prompt is the whole episode,
            which grows as one text (`reply`), in `chat` as a conversation.
        max_tokens: Token limit of a prompt.
        world: `game`, or `service` for conversations with tools such as τ²-bench's.
        max_state: Character limit of a state; a longer one is cut, and the prompt says how many characters are
            missing. 0 for no limit.
        thoughts: Whether the agent writes a thought before each action (ReAct, arXiv 2210.03629).
        predictions: Whether the agent writes the answer that it expects after each action, between the tags that
            `WorldModelRewardWrapper` reads.
        thinking: `enable_thinking` of chat templates that support it (Qwen3's); the template's default if absent. Text
            between `<think>` tags is never part of an action.
        json_schema: Whether a prediction that is JSON is asked for as its schema, as in the paper. Requires `service`.
        empty_thought: Whether the target of a chat begins with an empty thought, as in the paper's next-state SFT.
        rules: Returns the rules that the agent plays a game by, from the game's name; `ask` shows them.
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
        json_schema: bool = False,
        empty_thought: bool = True,
        rules: Callable[[str], str] | None = None,
    ) -> None:
        if style not in STYLES:
            raise InvalidConfigError(f"Expected a prompt `style` among {list(STYLES)}, actual: {style!r}.")
        if style == "chat" and not getattr(tokenizer, "chat_template", None):
            raise InvalidConfigError("Expected a chat template for `style` 'chat', actual: none. Use 'transcript'.")
        if world not in INSTRUCTIONS:
            raise InvalidConfigError(f"Expected a prompt `world` among {list(INSTRUCTIONS)}, actual: {world!r}.")
        if json_schema and world != "service":
            raise InvalidConfigError(
                f"Expected a prompt `world` with JSON, 'service', for `json_schema`, actual: {world!r}. "
                "Set it to False."
            )
        if max_state < 0:
            raise InvalidConfigError(f"Expected `max_state` of at least 0, actual: {max_state}.")
        if history < 0:
            raise InvalidConfigError(f"Expected `history` of at least 1 turn, or 0 for all, actual: {history}.")
        if max_tokens < 1:
            raise InvalidConfigError(f"Expected `max_tokens` of at least 1, actual: {max_tokens}.")
        self.tokenizer, self.style, self.history, self.max_tokens = tokenizer, style, history, max_tokens
        self.world, self.max_state = world, max_state
        self.thoughts, self.predictions, self.thinking = thoughts, predictions, thinking
        self.json_schema, self.empty_thought, self.rules = json_schema, empty_thought, rules
        self._cue = "Thought:" if thoughts else ">"
        self.special = special_tokens(tokenizer)
        self._has_system_role = style == "chat" and self._shows_system_messages()

    @property
    def prediction_stop(self) -> tuple[str | re.Pattern[str], ...]:
        """The stop of a prediction: the next command, or the closing tag outside of a thought."""
        return ("\n>",) if self.style == "transcript" else (stop_outside(CLOSE_TAG, self._opens_thought),)

    @property
    def action_stop(self) -> tuple[str | re.Pattern[str], ...]:
        """The stop texts of an agent's turn, in addition to the model's end token."""
        if self.style == "chat":
            mark = r"^\s*(?i:action:)" if self.thoughts else ""
            return (stop_outside(CLOSE_TAG, self._opens_thought, mark),) if self.predictions else ()
        if not self.thoughts and not self.predictions:
            return ("\n",)
        # The turn ends after the line with the command, or with the closing tag if a prediction begins in that line.
        command = r"\n>[^\n<]*\n" if self.thoughts else r"\A[^\n<]*\n"
        # A thought may speak of the tags.
        closed = re.compile(rf"\n>.*?{CLOSE_TAG}", re.DOTALL) if self.thoughts else CLOSE_TAG
        return (re.compile(command), closed) if self.predictions else (re.compile(command),)

    def ask(self, transition: Transition) -> list[int]:
        """Return the token ids of the prompt that asks for the next state of a transition, see `predict`.

        Beside its task the prompt holds the rules of its game, if these prompts know any, and what the user knows.
        """
        rules = "" if self.rules is None else self.rules(transition.game)
        task = "\n".join(filter(None, (transition.task, rules)))
        return self.predict(transition.history, transition.action, task, transition.known_info)

    def fits(self, transition: Transition) -> bool:
        """Return whether the prompt of a transition fits, at least without the turns before its action."""
        try:
            self.ask(replace(transition, history=()))
        except PromptTooLongError:
            return False
        return True

    def predict(self, history: Sequence[Turn], action: str, task: str, known_info: str = "") -> list[int]:
        """Return the token ids of the prompt that asks for the state after `action`.

        Args:
            history: The turns before the action.
            action: The action, which may be one that nobody takes.
            task: The agent's task, and its rules if they are to be shown.
            known_info: What the simulated user knows about himself, which an agent's prompt never holds.

        Raises:
            PromptTooLongError: If the prompt does not fit even without the turns.
        """
        known = f"{KNOWN_INFO}{known_info}" if known_info else ""
        label = "Potential action:\n" if self.style == "chat" else ""
        return self._fit(history, self._instruction(acts=False), (_of_task(task), known), f"{label}> {action}\n")

    def act(self, history: Sequence[Turn], task: str) -> list[int]:
        """Return the token ids of the prompt that asks for the next action; the errors are those of `predict`."""
        cue = self._cue if self.style == "transcript" else ""
        return self._fit(history, self._instruction(acts=True), (_of_task(task),), cue)

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
        before, after = self._between_turns
        ids = self._ids(f"{before}{shown}{after}")
        return ids[1:] if written and written[-1] == self._end_of_turn == ids[0] else ids

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
        end = self._end_of_turn
        return [*self._ids(text), *([] if end is None else [end])]

    def action_choice(self, action: str) -> list[int]:
        """Return the token ids of an action as far as it is chosen: to its end, or to where its prediction begins.

        Args:
            action: The action.

        Raises:
            InvalidConfigError: The prompts ask for a thought, which comes before the action.
        """
        if not self.predictions or self.thoughts:
            return self.action_target(action)
        return self._ids(f"{' ' * (self.style == 'transcript')}{self._data(action)} {OPEN_TAG}")

    def target(self, next_state: str) -> list[int]:
        """Return the token ids of a realised state as an SFT target, including its end."""
        return self._ids("".join(self._target(next_state)))

    def target_mask(self, next_state: str, spans: Callable[[str], Sequence[tuple[int, int]]]) -> list[int]:
        """Return a number for each token of `target`: 0 where it holds a character of a span, 1 elsewhere.

        Args:
            next_state: The realised state.
            spans: Finds begin and end of what is left out in the state as the target shows it.

        Raises:
            InvalidConfigError: The tokenizer does not say which characters a token holds.
        """
        before, state, after = self._target(next_state)
        if not getattr(self.tokenizer, "is_fast", False):
            raise InvalidConfigError(
                f"Expected a tokenizer that knows where its tokens are (a fast one), actual: "
                f"{type(self.tokenizer).__name__}. Choose another model, or learn whole targets."
            )
        tokenize: Any = self.tokenizer
        found = tokenize(f"{before}{state}{after}", add_special_tokens=False, return_offsets_mapping=True)
        left_out = [(begin + len(before), end + len(before)) for begin, end in spans(state)]
        return [
            int(not any(first < end and begin < last for begin, end in left_out))
            for first, last in found["offset_mapping"]
        ]

    def _target(self, next_state: str) -> tuple[str, str, str]:
        """Return the text of a target in three parts: before the state, the state, and after it."""
        state = self._state(next_state)
        if self.style == "transcript":
            return "", state, "\n>"
        return f"{EMPTY_THOUGHT * self.empty_thought}{OPEN_TAG}", state, CLOSE_TAG

    def read_prediction(self, text: str) -> str:
        """Return the predicted state in a completion; empty if there is none."""
        if self.style == "transcript":
            return _QUOTED.sub(r"\1", text.split("\n>", 1)[0]).strip()
        return split_prediction(without_thoughts(text, self._opens_thought))[1] or ""

    def prediction_span(self, text: str) -> tuple[int, int] | None:
        """Return where in an agent's turn the prediction stands that `read_action` keeps; `None` if there is none."""
        shown = blanked(text, self._opens_thought)
        return prediction_span(shown, len(text) - len(self._split_thought(shown)[1]) if self.thoughts else 0)

    def read_action(self, text: str) -> str:
        """Return the action in a completion: its first non-empty line, or the whole chat answer for `service`.

        Thoughts are removed. If the prompts ask for predictions, a prediction stays between its tags. Empty if there
        is no action.
        """
        text = without_thoughts(text, self._opens_thought)
        if self.thoughts:
            text = self._split_thought(text)[1]
        prediction = None
        if self.predictions:
            text, prediction = split_prediction(text)
        if self.style == "chat" and self.world == "service":
            action = text.strip()
        else:
            action = next((line.strip().removeprefix(">").strip() for line in text.splitlines() if line.strip()), "")
        return f"{action} {OPEN_TAG}{prediction}{CLOSE_TAG}" if prediction else action

    def read_thought(self, text: str) -> str:
        """Return the thought before the action in a completion; empty if the prompts ask for none."""
        if not self.thoughts:
            return ""
        thought = self._split_thought(without_thoughts(text, self._opens_thought))[0].strip()
        return re.sub(r"(?i)\Athought:\s*", "", thought)

    def _split_thought(self, text: str) -> tuple[str, str]:
        """Return what stands before the last mark of an action, and what stands behind it."""
        marker = r"(?m)^>" if self.style == "transcript" else r"(?mi)^\s*action:"
        marks = list(re.finditer(marker, text))
        return (text[: marks[-1].start()], text[marks[-1].end() :]) if marks else (text, "")

    def _instruction(self, acts: bool) -> str:
        words, chat = INSTRUCTIONS[self.world], self.style == "chat"
        if acts:
            text = words.act if chat else words.transcript
            return text + THINK[chat] * self.thoughts + FORESEE[chat] * self.predictions
        return (words.predict if chat else words.transcript) + JSON_SCHEMA[chat] * self.json_schema

    def _fit(self, history: Sequence[Turn], instruction: str, facts: Sequence[str], last: str) -> list[int]:
        """Return the token ids of a prompt with as many of the last turns as fit.

        Args:
            history: The turns.
            instruction: What the model is asked to do.
            facts: What is known of the episode, one a line; empty ones are left out.
            last: What follows the turns.
        """
        turns = [(self._data(turn.action), self.shown(turn.observation)) for turn in list(history)[-self.history :]]
        facts, last = [self._data(fact) for fact in facts if fact], self._data(last)

        def encode(turns: Sequence[tuple[str, str]]) -> list[int]:
            shown = "".join(f"> {action}\n" * bool(action) + f"{state}\n" for action, state in turns) + last
            if self.style == "transcript":
                return self._ids("\n".join([instruction, *facts]) + f"\n\n{shown}")
            said = "\n".join(facts) + f"\n\n{shown}"
            return self._ids(self._render(self._messages(instruction, said.strip())))

        for first in range(len(turns)):
            if len(ids := encode(turns[first:])) <= self.max_tokens:
                return ids
        if turns and (cut := self._cut_to_fit(*turns[-1], encode)) is not None:
            return cut
        if (needed := len(ids := encode([]))) > self.max_tokens:
            raise PromptTooLongError(
                "Expected room for what a prompt must hold (template, instruction, task, rules and command), actual: "
                f"{self.max_tokens} tokens, and they alone take {needed}. Set max_prompt_tokens (`max_tokens`) to that "
                "or more."
            )
        return ids

    def _cut_to_fit(
        self, action: str, state: str, encode: Callable[[Sequence[tuple[str, str]]], list[int]]
    ) -> list[int] | None:
        """Return the prompt with one turn and as much of the end of its state as fits; `None` if nothing of it does."""
        tokens = self._ids(state)

        def with_last(kept: int) -> list[int] | None:
            end = self.tokenizer.decode(tokens[len(tokens) - kept :]) if kept else ""
            ids = encode([(action, f"{_CUT}{end.lstrip(_HALF)}")])
            return ids if len(ids) <= self.max_tokens else None

        best = with_last(0) if tokens else None
        if best is None:
            return None
        fits, too_many = 0, len(tokens)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if (ids := with_last(middle)) is None:
                too_many = middle
            else:
                fits, best = middle, ids
        # Where a text is cut, its tokens are others, so that a little more of it may take fewer of them.
        for kept in range(too_many + 1, min(too_many + _UNEVEN, len(tokens))):
            best = with_last(kept) or best
        return best

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

    @cached_property
    def _opens_thought(self) -> bool:
        """Whether the chat template begins the model's turn with a thought, as those of some reasoning models do."""
        if self.style == "transcript":
            return False
        return self._render([{"role": "user", "content": _SENTINELS[1]}]).rstrip().endswith(OPEN_THOUGHT)

    @cached_property
    def _between_turns(self) -> tuple[str, str]:
        """What the chat template puts between an agent's turn and the observation, and after the latter."""
        wrote, answered = _SENTINELS
        turns = ["?", wrote, answered]
        roles = ["user", "assistant", "user"]
        text = self._render([{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)])
        before, _, after = text.rpartition(wrote)[2].partition(answered)
        return before, after

    @cached_property
    def _end_of_turn(self) -> int | None:
        """The special token with which the chat template ends an agent's turn, which need not be that of a text."""
        first = self._ids(self._between_turns[0])[:1]
        ends = bool(first) and self.tokenizer.decode(first) in self.special
        return first[0] if ends else getattr(self.tokenizer, "eos_token_id", None)

    def _render(self, messages: list[dict[str, str]]) -> str:
        extra = {} if self.thinking is None else {"enable_thinking": self.thinking}
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **extra)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _data(self, text: str) -> str:
        return without_special_tokens(text, self.special)

    def shown(self, state: str) -> str:
        """Return a state as prompts show it: special tokens neutralised, a long one cut."""
        left_out = len(state) - self.max_state
        if not self.max_state or left_out <= 0:
            return self._state(state)
        return f"{self._state(state[: self.max_state])} … [{left_out} more characters]"

    def _state(self, text: str) -> str:
        """Return a state as data; in a transcript, a line that looks like a command begins with one more blank."""
        return _COMMAND.sub(r" \1", self._data(text)) if self.style == "transcript" else self._data(text)


def _of_task(task: str) -> str:
    return f"Task: {task}" if task else ""
