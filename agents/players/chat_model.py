"""A local language model as a chat partner: it can play the user of τ²-bench without an endpoint."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.models import load_adapter, load_model
from rwml_gym.agents.language.sampling import sample
from rwml_gym.agents.players.messages import Answer, ChatAgent
from rwml_gym.envs.tau2.actions import InvalidAction, Speech, parse_action, without_thoughts
from rwml_gym.envs.tau2.tools import ToolSpec
from rwml_gym.errors import InvalidConfigError

__all__ = ["LocalChatModel", "knows_tools"]


class LocalChatModel:
    """Answers chat messages with a model of `language.models.load_model`, through the model's own chat template.

    Pass it to ``gymnasium.make("rwml_gym/Tau2-v0", user="model", user_model=…)``. A call in a form that
    `envs.tau2.actions` reads becomes a tool call; any other answer stays text. Thoughts are removed.

    Args:
        name: Model name, see `load_model`; its tokenizer needs a chat template.
        adapter: Folder of a LoRA adapter to load.
        max_new_tokens: Token limit of an answer.
        temperature: Sampling temperature; 0 is greedy.
        seed: Seed of the sampling; an answer depends on it, the conversation and the number of messages.
        dtype: See `load_model`.
        device: See `load_model`.
    """

    def __init__(
        self,
        name: str,
        adapter: str | None = None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        dtype: str = "auto",
        device: str | torch.device | None = None,
    ) -> None:
        model, tokenizer = load_model(name, dtype, device)
        if getattr(tokenizer, "chat_template", None) is None:
            raise InvalidConfigError(
                f"Expected a chat template, actual: none for {name}. Use an instruction-tuned model."
            )
        self._set(model if adapter is None else load_adapter(model, adapter), tokenizer, max_new_tokens, temperature)
        self.seed = seed

    @classmethod
    def of(
        cls, model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int = 256, temperature: float = 0.0
    ) -> LocalChatModel:
        """Make a chat partner of a model that is loaded already, whose tokenizer has a chat template."""
        made = cls.__new__(cls)
        made._set(model, tokenizer, max_new_tokens, temperature)
        return made

    def _set(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, temperature: float
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, 0

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalChatModel:
        """Return this model itself: its answers depend on the conversation alone, and its weights are large."""
        return self

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the OpenAI-style assistant message that answers a conversation.

        Args:
            messages: OpenAI-style messages.
            tools: OpenAI-style tool schemas.
        """
        return self.answer(messages, tools, self.seed).message

    def seeded(self, seed: int) -> ChatAgent:
        """Return a function that answers with this seed, and says how many tokens it took."""
        return lambda messages, tools: self.answer(messages, tools, seed)

    def answer(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], seed: int) -> Answer:
        """Return the answer to a conversation with the tokens that it took."""
        given: list[Any] | None = list(tools) or None
        prompt: Any = self.tokenizer.apply_chat_template(messages, tools=given, add_generation_prompt=True)
        tokens = list(prompt["input_ids"] if isinstance(prompt, dict) or hasattr(prompt, "keys") else prompt)
        ((completion,),) = sample(
            self.model,
            self.tokenizer,
            [tokens],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed + len(messages),
        )
        lengths = len(tokens), len(completion.tokens)
        text = without_thoughts(completion.text)
        specs = {tool["function"]["name"]: ToolSpec(**tool["function"]) for tool in tools}
        request = parse_action(text, specs)
        if isinstance(request, InvalidAction | Speech):
            return Answer({"role": "assistant", "content": text}, *lengths)
        function = {"name": request.name, "arguments": json.dumps(request.arguments)}
        calls = [{"type": "function", "function": function}]
        return Answer({"role": "assistant", "content": None, "tool_calls": calls}, *lengths)


def knows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the chat template of a model shows the tools that it is given."""
    if getattr(tokenizer, "chat_template", None) is None:
        return False
    function = {"name": "x_tool", "description": "", "parameters": {"type": "object", "properties": {}}}
    tools: list[Any] = [{"type": "function", "function": function}]
    messages = [{"role": "user", "content": "x"}]
    return "x_tool" in str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False))
