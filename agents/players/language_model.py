"""A language model in both its roles: the agent that acts, and the world model that predicts what comes of it."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import Choices, Completion
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.players.base import Agent, Decoding
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.tags import split_prediction
from rwml_gym.transitions import Turn

__all__ = ["LanguageModelAgent", "TurnRecord", "describe_task"]


@dataclass(frozen=True)
class TurnRecord:
    """One turn as the model saw and wrote it.

    Attributes:
        prompt: Token ids it was shown; none where somebody else chose the action.
        completion: What it wrote; `None` likewise.
        action: What was handed to the environment.
    """

    prompt: list[int]
    completion: Completion | None
    action: str


@dataclass
class _Memory:
    """What an agent remembers of a slot's episode."""

    seed: int | None = None
    rng: random.Random = field(default_factory=random.Random)
    turns: list[Turn] = field(default_factory=list)
    written: list[TurnRecord] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)  # of the turn that is being written


class LanguageModelAgent:
    """Plays by writing its next command; optionally some actions are random ones.

    Free text is played as it is: a command the world does not know is answered by the world. Where the world has tools,
    it is shown their names and parameters with the task. With `Prompts(history=0)` the episode is one text of which
    each turn runs its new tokens only; with a window every turn is a prompt of its own.

    What an agent does in an episode follows from the episode's seed, not from who else is in the batch.

    Args:
        model: A model of `models.load_model`, with or without adapter.
        tokenizer: Its tokenizer.
        prompts: What it is shown and how its answers are read.
        temperature: Of sampling; the paper collects with 1.0.
        random_share: Probability of playing a random admissible action instead of the model's, or the explorer's.
        seed: Of the agent; an episode's seed follows from it, the game, and how often that was played before.
        explorer: Who plays the random actions, where the world lists no admissible ones.
        action_tokens: Longest action with its thought and prediction; the default suits short commands.
        show_policy: Whether the model is shown the world's policy, `info["policy"]`, with the task.
        decoding: How actions are written where the world lists the admissible ones: `free` text; `constrained`, token
            by token, to those; or `scored`, each as a whole by its log-probability. Elsewhere it is free text.

    Raises:
        InvalidConfigError: Unknown decoding, or a choice among actions beside thoughts or predictions.
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
        decoding: Decoding = "free",
    ) -> None:
        if decoding not in get_args(Decoding):
            raise InvalidConfigError(f"Expected decoding among {list(get_args(Decoding))}, actual {decoding!r}")
        if decoding != "free":
            prompts.action_target("look")  # refuses prompts that ask for more than an action
        self.prompts, self.sessions = prompts, Sessions(model, tokenizer)
        self.temperature, self.random_share, self.decoding = temperature, random_share, decoding
        self.explorer, self.action_tokens, self.show_policy = explorer, action_tokens, show_policy
        self.seed = seed
        self._visits: Counter[str] = Counter()
        self._episodes: list[_Memory] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Writes one action a slot; idle slots, and those whose turn it is to explore, cost no generation."""
        self._episodes += [_Memory() for _ in range(len(observations) - len(self._episodes))]
        playing = [slot for slot, observation in enumerate(observations) if observation is not None]
        for slot in playing:
            self._listen(self._episodes[slot], str(observations[slot]), infos[slot])
        explored = self._explored(observations, infos, playing)
        actions = [""] * len(observations)
        asked = [slot for slot in playing if explored[slot] is None]
        for slot, completion in zip(asked, self._write(asked, infos), strict=True):
            actions[slot] = self._play(slot, completion, self.prompts.read_action(completion.text))
        for slot, action in explored.items():
            if action is not None:
                actions[slot] = self._play(slot, None, action)
        return actions

    def reset(self, mask: Sequence[bool], seeds: Sequence[int | None] | None = None) -> None:
        """Forgets the episodes of the slots that start again; if all do, what the model has read, too.

        Args:
            mask: True where a new episode starts.
            seeds: Of the new episodes, one a slot; where there is none it follows from agent and game.
        """
        if self.explorer is not None:
            self.explorer.reset(mask)
        starting = [slot for slot, start in enumerate(mask) if start]
        self._episodes += [_Memory() for _ in range(len(mask) - len(self._episodes))]
        for slot in starting:
            self._episodes[slot] = _Memory(None if seeds is None else seeds[slot])
        if all(mask):
            del self._episodes[len(mask) :]
            self.sessions.clear()  # the weights may be others now
        else:
            self.sessions.forget(starting)

    def playing(self) -> AbstractContextManager[Any]:
        """Merge the adapter into the weights once, not at every turn."""
        return merged(self.sessions.model)

    def written(self, slot: int) -> list[TurnRecord]:
        """The turns of the episode in a slot so far."""
        return list(self._episodes[slot].written)

    def _listen(self, episode: _Memory, observation: str, info: dict[str, Any]) -> None:
        if not episode.turns:
            if episode.seed is None:
                game = str(info.get("game", ""))
                episode.seed = seed_of(self.seed, game, self._visits[game])
                self._visits[game] += 1
            episode.rng = random.Random(episode.seed)
            last = ""
        else:
            last = split_prediction(episode.written[-1].action)[0]
        episode.turns.append(Turn(last, observation))

    def _explored(
        self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]], playing: Sequence[int]
    ) -> dict[int, str | None]:
        """The action of each playing slot that explores, None where the model acts."""
        if self.explorer is not None:
            possible = [[action] for action in self.explorer.act(observations, infos)]
        else:
            possible = [info.get("admissible_actions") or [] for info in infos]
        explored: dict[int, str | None] = {}
        for slot in playing:
            rng = self._episodes[slot].rng
            explores = rng.random() < self.random_share and bool(possible[slot])
            explored[slot] = rng.choice(possible[slot]) if explores else None
        return explored

    def _write(self, slots: Sequence[int], infos: Sequence[dict[str, Any]]) -> list[Completion]:
        requests, options = [], []
        for slot in slots:
            episode = self._episodes[slot]
            seed = seed_of(episode.seed or 0, len(episode.written))
            admissible = [] if self.decoding == "free" else infos[slot].get("admissible_actions") or []
            options.append([self.prompts.action_target(action) for action in admissible])
            choices = Choices(options[-1]) if options[-1] else None
            episode.prompt = self._prompt(episode, infos[slot])
            requests.append(Request(slot, episode.prompt, seed, choices))
        if self.decoding == "scored" and all(options):
            return self._choose(requests, options)
        return self.sessions.generate(
            requests,
            # A choice is as long as it is: cut off, it would be none.
            max_new_tokens=max([self.action_tokens, *(len(o) for row in options for o in row)]),
            temperature=self.temperature,
            stop=self.prompts.action_stop,
        )

    def _choose(self, requests: Sequence[Request], options: Sequence[list[list[int]]]) -> list[Completion]:
        """One of the options each: the likeliest, or one drawn by its probability among them."""
        chosen = []
        for request, row, scores in zip(requests, options, self.sessions.score(requests, options), strict=True):
            best = max(scores)
            if self.temperature > 0:
                weights = [math.exp((score - best) / self.temperature) for score in scores]
                tokens = random.Random(request.seed).choices(row, weights)[0]
            else:
                tokens = row[scores.index(best)]
            text = str(self.sessions.tokenizer.decode(tokens, skip_special_tokens=True))
            chosen.append(Completion(tokens, [], text, True))
        return chosen

    def _prompt(self, episode: _Memory, info: dict[str, Any]) -> list[int]:
        last = episode.written[-1] if episode.written else None
        if self.prompts.history == 0 and last is not None and last.completion is not None:
            own = last.completion.tokens
            ids = [*last.prompt, *own, *self.prompts.reply(episode.turns[-1].observation, own)]
            if len(ids) <= self.prompts.max_tokens:
                return ids
        return self.prompts.act(
            episode.turns, describe_task(info, self.show_policy)
        )  # anew, without the oldest turns if need be

    def _play(self, slot: int, completion: Completion | None, action: str) -> str:
        episode = self._episodes[slot]
        episode.written.append(TurnRecord(episode.prompt if completion is not None else [], completion, action))
        return action


def describe_task(info: Mapping[str, Any], show_policy: bool = False) -> str:
    """The task as an agent is shown it: with the names and parameters of the tools, and the policy if wanted."""
    parts = [str(info.get("task", ""))]
    if show_policy and info.get("policy"):
        parts.append(f"Policy:\n{info['policy']}")
    if info.get("tools"):
        functions = [tool["function"] for tool in info["tools"]]
        calls = [f"{f['name']}({', '.join(f['parameters'].get('properties', ()))})" for f in functions]
        parts.append(f"Tools: {', '.join(calls)}")
    return "\n".join(parts)
