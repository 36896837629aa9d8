"""A local language model as a chat partner: it can play the user of τ²-bench without an endpoint."""

from __future__ import annotations

import json
from typing import Any

import torch

from rwml_gym.agents.language.models import load_adapter, load_model
from rwml_gym.agents.language.sampling import sample
from rwml_gym.envs.tau2.actions import InvalidAction, Speech, parse_action, without_thoughts
from rwml_gym.envs.tau2.tools import ToolSpec
from rwml_gym.errors import InvalidConfigError

__all__ = ["LocalChatModel"]


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
        self.model, self.tokenizer = load_model(name, dtype, device)
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise InvalidConfigError(
                f"Expected a chat template, actual: none for {name}. Use an instruction-tuned model."
            )
        if adapter is not None:
            self.model = load_adapter(self.model, adapter)
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, seed

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalChatModel:
        """Return this model itself: its answers depend on the conversation alone, and its weights are large."""
        return self

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the OpenAI-style assistant message that answers a conversation.

        Args:
            messages: OpenAI-style messages.
            tools: OpenAI-style tool schemas.
        """
        prompt = self.tokenizer.apply_chat_template(messages, tools=tools or None, add_generation_prompt=True)
        tokens = list(prompt["input_ids"] if isinstance(prompt, dict) or hasattr(prompt, "keys") else prompt)
        ((completion,),) = sample(
            self.model,
            self.tokenizer,
            [tokens],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed + len(messages),
        )
        text = without_thoughts(completion.text)
        specs = {tool["function"]["name"]: ToolSpec(**tool["function"]) for tool in tools}
        request = parse_action(text, specs)
        if isinstance(request, InvalidAction | Speech):
            return {"role": "assistant", "content": text}
        function = {"name": request.name, "arguments": json.dumps(request.arguments)}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
