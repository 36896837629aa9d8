"""A language model in both its roles: the agent that acts, and the world model that predicts what comes of it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.base import Agent
from rwml_gym.agents.generation import Completion, sample
from rwml_gym.prompts import Prompts
from rwml_gym.transitions import Transition, Turn

__all__ = ["LanguageModelAgent", "LanguageWorldModel"]


class LanguageModelAgent:
    """Plays by writing its next command as free text; optionally some actions are random ones.

    Whatever the model writes is played: a command the world does not know is answered by the world. Where the world has
    tools, it is shown their names and parameters with the task.

    Args:
        model: A model of `models.load_model`, with or without adapter.
        tokenizer: Its tokenizer.
        prompts: What it is shown.
        temperature: Of sampling; the paper collects with 1.0.
        random_share: Probability of playing a random admissible action instead of the model's, or the explorer's.
        seed: Everything the agent does follows from it and the order of the calls.
        explorer: Who plays the random actions, where the world lists no admissible ones.
        action_tokens: Longest action; the default suits short commands, more tokens are a model that rambles.
        show_policy: Whether the model is shown the world's policy, `info["policy"]`, with the task.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        temperature: float = 1.0,
        random_share: float = 0.0,
        seed: int = 0,
        explorer: Agent | None = None,
        action_tokens: int = 16,
        show_policy: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.prompts = model, tokenizer, prompts
        self.temperature, self.random_share = temperature, random_share
        self.explorer, self.action_tokens, self.show_policy = explorer, action_tokens, show_policy
        self._rng = random.Random(seed)
        self._turns: list[deque[Turn]] = []
        self._last: list[str] = []

    def act(self, observations: Sequence[str], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Writes one action a slot; the slots whose turn it is to explore at random cost no generation."""
        while len(self._turns) < len(observations):
            self._turns.append(deque(maxlen=self.prompts.history))
            self._last.append("")
        for slot, observation in enumerate(observations):
            self._turns[slot].append(Turn(self._last[slot], observation))
        explored = self._explored(observations, infos)
        actions = [action or "" for action in explored]
        asked = [slot for slot, action in enumerate(explored) if action is None]
        completions = sample(
            self.model,
            self.tokenizer,
            [self.prompts.act(self._turns[slot], self._task(infos[slot])) for slot in asked],
            max_new_tokens=self.action_tokens,
            temperature=self.temperature,
            stop=self.prompts.action_stop,
            seed=self._rng.getrandbits(63),
        )
        for slot, (completion,) in zip(asked, completions, strict=True):
            actions[slot] = self.prompts.read_action(completion.text)
        self._last[: len(actions)] = actions
        return actions

    def _explored(self, observations: Sequence[str], infos: Sequence[dict[str, Any]]) -> list[str | None]:
        """The action of each slot that explores, None where the model acts."""
        if self.explorer is not None:
            possible = [[action] for action in self.explorer.act(observations, infos)]
        else:
            possible = [info.get("admissible_actions") or [] for info in infos]
        explore = [self._rng.random() < self.random_share and bool(actions) for actions in possible]
        return [self._rng.choice(actions) if e else None for e, actions in zip(explore, possible, strict=True)]

    def _task(self, info: dict[str, Any]) -> str:
        """The task, with the policy and the tools that there are."""
        parts = [str(info.get("task", ""))]
        if self.show_policy and info.get("policy"):
            parts.append(f"Policy:\n{info['policy']}")
        if info.get("tools"):
            functions = [tool["function"] for tool in info["tools"]]
            calls = [f"{f['name']}({', '.join(f['parameters'].get('properties', ()))})" for f in functions]
            parts.append(f"Tools: {', '.join(calls)}")
        return "\n".join(parts)

    def reset(self, mask: Sequence[bool]) -> None:
        """Forgets the episodes of the slots that start again."""
        if self.explorer is not None:
            self.explorer.reset(mask)
        for slot, start in enumerate(mask[: len(self._turns)]):
            if start:
                self._turns[slot].clear()
                self._last[slot] = ""


class LanguageWorldModel:
    """A `WorldModel` that asks a language model for the next state.

    Args:
        model: A model of `models.load_model`, with or without adapter.
        tokenizer: Its tokenizer.
        prompts: What it is shown and how its answer is read.
        max_new_tokens: Longest prediction, in tokens.
        batch_rows: Predictions written at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        max_new_tokens: int = 96,
        batch_rows: int = 64,
    ) -> None:
        self.model, self.tokenizer, self.prompts = model, tokenizer, prompts
        self.max_new_tokens, self.batch_rows = max_new_tokens, batch_rows

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[str]:
        """The likeliest next state (greedy) for each history and action; empty where the model wrote none."""
        tasks = tasks if tasks is not None else [""] * len(actions)
        prompts = [self.prompts.predict(h, a, t) for h, a, t in zip(histories, actions, tasks, strict=True)]
        return [self.prompts.read_prediction(c.text) for (c,) in self._sample(prompts, 1, 0.0, 0)]

    def attempts(
        self,
        transitions: Sequence[Transition],
        n: int,
        temperature: float = 1.0,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        """Samples `n` predictions of each transition, as completions; `prompts.read_prediction` reads their texts.

        Args:
            transitions: T transitions.
            n: Attempts at each.
            temperature: 0 for greedy.
            seed: Of the sampling.
            progress: Called with the number of transitions done since the last call.

        Returns:
            T lists of `n` completions.
        """
        prompts = [self.prompts.predict(t.history, t.action, t.task) for t in transitions]
        return self._sample(prompts, n, temperature, seed, progress)

    def _sample(
        self,
        prompts: list[list[int]],
        n: int,
        temperature: float,
        seed: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        return sample(
            self.model,
            self.tokenizer,
            prompts,
            n,
            max_new_tokens=self.max_new_tokens,
            temperature=temperature,
            stop=self.prompts.prediction_stop,
            seed=seed,
            batch_rows=self.batch_rows,
            progress=progress,
        )
