"""An agent that plays by writing its actions with a language model."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import Choices, Completion
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.players.base import Agent, Decoding, Move
from rwml_gym.agents.seeding import seed_of
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.tags import split_prediction
from rwml_gym.transitions import Turn

__all__ = ["AGENT_FILE", "LanguageModelAgent", "TurnRecord"]

AGENT_FILE = "agent.json"
"""In the folder of a policy's adapter: the options of `rwml-gym evaluate` with which it plays as in its training."""


@dataclass(frozen=True)
class TurnRecord:
    """One turn of a language-model agent.

    Attributes:
        prompt: Token ids of the prompt; empty if the model did not choose the action.
        completion: The model's completion; `None` if the model did not choose the action.
        action: The action passed to the environment.
    """

    prompt: list[int]
    completion: Completion | None
    action: str


@dataclass
class _Memory:
    """An agent's memory of the episode in a slot."""

    seed: int | None = None
    rng: random.Random = field(default_factory=random.Random)
    turns: list[Turn] = field(default_factory=list)
    written: list[TurnRecord] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)  # of the current turn


class LanguageModelAgent:
    """Plays by writing the next action; a share of the actions can be random.

    Free text is played unchanged, and the environment answers unknown commands. If the environment has tools, the task
    in the prompt lists their names and parameters, or their schemas. With `Prompts(history=0)` the episode is one text,
    and each turn runs its new tokens only. With a history window every turn has its own prompt.

    The actions in an episode depend on the episode's seed, not on the rest of the batch.

    Args:
        model: A model of `language.models.load_model`, with or without adapter.
        tokenizer: The model's tokenizer.
        prompts: Builds the prompts and reads the model's answers.
        temperature: Sampling temperature; the paper collects with 1.0.
        random_share: Probability of a random admissible action, or the explorer's, instead of the model's.
        seed: Seed of the agent; an episode's seed depends on it, the game and how often the game was played before.
        explorer: Agent that plays the random actions, for environments that list no admissible ones.
        action_tokens: Token limit of an action with its thought and prediction; the default suits short commands.
        show_policy: Whether the prompt holds the policy and the tools' schemas, see `describe_task`.
        decoding: How the model writes an action: as `free` text, `constrained` token by token to the admissible
            actions, or `scored`, a choice by each action's log-probability. Without a list it is free text. Thoughts
            require `free`; a prediction is free text behind a `constrained` action.
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
            raise InvalidConfigError(f"Expected `decoding` among {list(get_args(Decoding))}, actual: {decoding!r}.")
        # These raise if the prompts ask for more than can be written so.
        if decoding == "scored":
            prompts.action_target("look")
        elif decoding == "constrained":
            prompts.action_choice("look")
        self.prompts, self.sessions = prompts, Sessions(model, tokenizer)
        self.temperature, self.random_share, self.decoding = temperature, random_share, decoding
        self.explorer, self.action_tokens, self.show_policy = explorer, action_tokens, show_policy
        self.seed = seed
        self._visits: Counter[str] = Counter()
        self._episodes: list[_Memory] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return one action per slot; only slots where the model chooses the action cost generation."""
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
        """Forget the episodes of the slots that start again; if all do, also clear the key-value cache.

        Args:
            mask: True where a new episode starts.
            seeds: Seeds of the new episodes, one per slot; `None` derives a seed from the agent's seed and the game.
        """
        if self.explorer is not None:
            self.explorer.reset(mask)
        starting = [slot for slot, start in enumerate(mask) if start]
        self._episodes += [_Memory() for _ in range(len(mask) - len(self._episodes))]
        for slot in starting:
            self._episodes[slot] = _Memory(None if seeds is None else seeds[slot])
        if all(mask):
            del self._episodes[len(mask) :]
            self.sessions.clear()  # the weights may have changed
        else:
            self.sessions.forget(starting)

    def episode_seeds(self, games: Sequence[str | int]) -> list[int]:
        """Return the seeds of an agent's first episodes, of these games, whichever process or slot plays them."""
        visits: Counter[str] = Counter()
        seeds = []
        for game in map(str, games):
            seeds.append(seed_of(self.seed, game, visits[game]))
            visits[game] += 1
        return seeds

    def playing(self) -> AbstractContextManager[Any]:
        """Merge the adapter into the weights once, not at every turn."""
        return merged(self.sessions.model)

    def written(self, slot: int) -> list[TurnRecord]:
        """Return the turns of the current episode in a slot."""
        return list(self._episodes[slot].written)

    def last_move(self, slot: int) -> Move:
        """Return the last turn of the current episode in a slot, with what the model was shown and wrote."""
        turn = self._episodes[slot].written[-1]
        action, prediction = split_prediction(turn.action)
        if turn.completion is None:
            return Move(action, prediction)
        text = turn.completion.text
        shown = str(self.prompts.tokenizer.decode(turn.prompt))
        thought = self.prompts.read_thought(text)
        return Move(action, prediction, thought, shown, text, len(turn.prompt), len(turn.completion.tokens))

    def _listen(self, episode: _Memory, observation: str, info: dict[str, Any]) -> None:
        if not episode.turns:
            if episode.seed is None:
                game = str(info.get("game") or "")
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
        """Return the exploring action of each playing slot, `None` where the model acts."""
        if self.explorer is not None:
            possible = [[action] for action in self.explorer.act(observations, infos)]
        else:
            possible = [list(admissible_actions(info)) for info in infos]
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
            admissible = () if self.decoding == "free" else admissible_actions(infos[slot])
            options.append([self.prompts.action_choice(action) for action in admissible])
            choices = Choices(options[-1], self.prompts.predictions) if options[-1] else None
            episode.prompt = self._prompt(episode, infos[slot])
            requests.append(Request(slot, episode.prompt, seed, choices))
        if self.decoding == "scored" and all(options):
            return self._choose(requests, options)
        return self.sessions.generate(
            requests,
            # Never truncate a constrained choice.
            max_new_tokens=max([self.action_tokens, *(len(o) for row in options for o in row)]),
            temperature=self.temperature,
            stop=self.prompts.action_stop,
        )

    def _choose(self, requests: Sequence[Request], options: Sequence[list[list[int]]]) -> list[Completion]:
        """Choose the likeliest option of each request, or draw one by its probability among the options."""
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
        # A new prompt, without the oldest turns if they do not fit.
        return self.prompts.act(episode.turns, describe_task(info, self.show_policy))

    def _play(self, slot: int, completion: Completion | None, action: str) -> str:
        episode = self._episodes[slot]
        episode.written.append(TurnRecord(episode.prompt if completion is not None else [], completion, action))
        return action
