"""Training on many GPUs with TRL's `GRPOTrainer`, which distributes the update and samples with vLLM.

World-model learning needs its reward function and data only, with one prediction per completion::

    GRPOTrainer(
        model, reward_funcs=prediction_reward(gap, prompts), train_dataset=prediction_dataset(transitions, prompts)
    )

Text environments, with many turns, use its `rollout_func`::

    rollout = EnvironmentRollout(make_env, Prompts(tokenizer, history=0))
    GRPOTrainer(
        model, rollout_func=rollout, reward_funcs=[task_reward, world_model_reward], train_dataset=make_dataset(games)
    )

TRL 1.16 passes the prompts of its batch to an (experimental) `rollout_func`, each repeated once per completion, and
expects one row per prompt. A row here is a whole episode as one text: the first prompt, then in turns the model's
tokens (mask 1, with their log-probabilities at sampling time) and the observations (mask 0). The ids are the sampled
ones; nothing is tokenised twice. This module does not import TRL.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch

from rwml_gym.agents.integrations.trl_rewards import (
    PredictionReward,
    prediction_reward,
    task_reward,
    world_model_reward,
)
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import cut_at_stop, sample
from rwml_gym.agents.language.shared_prefix import ATTENTION
from rwml_gym.agents.learning.distributed import check_distributed
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError, RWMLGymError
from rwml_gym.transitions import Transition, Turn

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "EnvironmentRollout",
    "Generate",
    "PredictionReward",
    "make_dataset",
    "prediction_dataset",
    "prediction_reward",
    "task_reward",
    "world_model_reward",
]

Generate = Callable[[list[list[int]], Any], list[tuple[list[int], list[float]]]]
"""Continues each of the token lists, given TRL's trainer: returns tokens and their log-probabilities."""

_log = logging.getLogger(__name__)


def make_dataset(games: Sequence[str | int]) -> Dataset:
    """Return the games as TRL's training data, in which a prompt names a game for `EnvironmentRollout`.

    Args:
        games: At least one name of a game, for `reset(options={"game": name})`, or seed for `reset(seed=…)`.
    """
    from datasets import Dataset

    if not games:
        raise InvalidConfigError("Expected at least one game to play, actual: none. Add names or seeds to `games`.")
    return Dataset.from_list([{"prompt": json.dumps({"game": game})} for game in games])


def prediction_dataset(transitions: Sequence[Transition], prompts: Prompts) -> Dataset:
    """Return transitions as TRL's training data for world-model learning: `prompt`, `next_state` and `role`.

    TRL tokenises the prompts itself. If the tokenizer adds a beginning-of-sequence token, as Llama's does, a prompt of
    either style has one.

    Args:
        transitions: At least one transition to predict.
        prompts: Builds the model's prompts.
    """
    from datasets import Dataset

    if not transitions:
        raise InvalidConfigError("Expected at least one transition to predict, actual: none. Record some first.")
    texts = [_as_text(prompts, prompts.ask(t)) for t in transitions]
    rows = zip(texts, transitions, strict=True)
    return Dataset.from_list([{"prompt": text, "next_state": t.next_state, "role": t.role} for text, t in rows])


def _as_text(prompts: Prompts, tokens: list[int]) -> str:
    """Return the text of a prompt, without the beginning-of-sequence token that tokenising it again would add."""
    start = getattr(prompts.tokenizer, "bos_token_id", None)
    if start is not None and tokens[:1] == [start] and prompts.tokenizer.encode("")[:1] == [start]:
        tokens = tokens[1:]
    return prompts.tokenizer.decode(tokens)


@dataclass
class _Episode:
    """A row of the batch while its episode runs."""

    prompt: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    reward: float = 0.0
    gaps: list[float] = field(default_factory=list)
    turns: int = 0
    over: bool = False
    failure: Exception | None = None

    def add(self, tokens: Sequence[int], logprobs: Sequence[float | None] | None = None) -> None:
        """Append the model's tokens, or other tokens, which have no log-probabilities."""
        self.tokens += tokens
        self.logprobs += [0.0] * len(tokens) if logprobs is None else logprobs
        self.mask += [int(logprobs is not None)] * len(tokens)


def _task(info: dict[str, Any]) -> str:
    return str(info.get("task") or "")


class EnvironmentRollout:
    """A `rollout_func` that plays the episodes of all rows in parallel; rows of one prompt are episodes of one game.

    In addition to TRL's keys it returns `episode_reward` (the task reward), `episode_world_model` (mean reward of the
    predictions, `None` without `WorldModelRewardWrapper`), `episode_turns` and `episode_failed`, which reward functions
    can request by name. If an environment raises, the episode is logged, and its row has reward 0 and mask 0. If all
    episodes fail, an error is raised.

    A finished episode closes with the end-of-sequence token (mask 0), by which TRL distinguishes it from one that
    `max_completion_length` truncated.

    All that is random follows from `seed`, the trainer's step and the prompts, so a training that is resumed plays what
    an uninterrupted one would. A rollout can be pickled if `make_env` can; the environments are made again.

    Args:
        make_env: Makes a text environment with its step budget.
        prompts: Builds the prompts and reads the answers; `history` is ignored, because the text is the whole episode.
        generate: Generates the model's turns. If absent, TRL's vLLM if the trainer uses it, otherwise this package's
            sampling on the trainer's model, which must come from `language.models.load_model`.
        max_turns: Maximal number of turns in an episode.
        action_tokens: Token limit of the model's turn.
        task: Returns the task of an episode from the info of its reset.
        seed: Seed of this package's sampling, and of games that are asked for by name.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[str, Any]],
        prompts: Prompts,
        generate: Generate | None = None,
        max_turns: int = 30,
        action_tokens: int = 16,
        task: Callable[[dict[str, Any]], str] = _task,
        seed: int = 0,
    ) -> None:
        if max_turns < 1 or action_tokens < 1:
            raise InvalidConfigError(
                f"Expected `max_turns` and `action_tokens` of at least 1, actual: {max_turns} and {action_tokens}."
            )
        self.make_env, self.prompts, self.generate = make_env, prompts, generate
        self.max_turns, self.action_tokens, self.task, self.seed = max_turns, action_tokens, task, seed
        self._envs: dict[int, gym.Env[str, Any]] = {}
        self._state: Any = None
        self._moment: tuple[str | int, ...] = ()
        self._calls = self._turns = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the environments and the trainer's state, which the next call makes or finds again."""
        return {**self.__dict__, "_envs": {}, "_state": None}

    @property
    def generation_kwargs(self) -> dict[str, Any]:
        """The `generation_kwargs` for `trl.GRPOConfig` with vLLM, where a completion is a turn, not an episode."""
        return {"max_tokens": self.action_tokens, "stop": [s for s in self.prompts.action_stop if isinstance(s, str)]}

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode per prompt; return TRL's keys and those for reward functions.

        Args:
            prompts: Prompts of `make_dataset`, repeated by TRL.
            trainer: TRL's `GRPOTrainer`.

        Raises:
            InvalidConfigError: If the trainer's settings do not allow episodes of several turns.
            RWMLGymError: If all episodes failed.
        """
        if trainer.max_completion_length <= self.action_tokens:
            raise InvalidConfigError(
                "Expected `max_completion_length` of a whole episode, actual: "
                f"{trainer.max_completion_length} with `action_tokens` {self.action_tokens}. Raise it in GRPOConfig."
            )
        generate = self.generate or (self._with_vllm if trainer.use_vllm else self._here)
        self._enter(trainer)
        episodes = [self._start(slot, prompt) for slot, prompt in enumerate(prompts)]
        # vLLM gathers the prompts of all processes, so these must make the same calls with equally many prompts.
        in_step = trainer.use_vllm and trainer.accelerator.num_processes > 1
        while _any(trainer.accelerator, in_step, [not episode.over for episode in episodes]):
            asked = [slot for slot, episode in enumerate(episodes) if in_step or not episode.over]
            sequences = [self._sequence(episodes[slot]) for slot in asked]
            for slot, (tokens, logprobs) in zip(asked, generate(sequences, trainer), strict=True):
                if not episodes[slot].over:
                    self._turn(slot, episodes[slot], tokens, logprobs, trainer.max_completion_length)
        failed = [episode for episode in episodes if episode.failure is not None]
        if failed and len(failed) == len(episodes):
            raise RWMLGymError(
                f"Expected an episode that does not fail, actual: all {len(episodes)} episodes failed, the first with "
                f"{failed[0].failure!r}. Check that make_env plays the games of make_dataset."
            ) from failed[0].failure
        return {
            "prompt_ids": [e.prompt for e in episodes],
            "completion_ids": [e.tokens for e in episodes],
            "logprobs": [e.logprobs for e in episodes],
            "env_mask": [e.mask for e in episodes],
            "episode_reward": [e.reward for e in episodes],
            "episode_world_model": [sum(e.gaps) / len(e.gaps) if e.gaps else None for e in episodes],
            "episode_turns": [e.turns for e in episodes],
            "episode_failed": [e.failure is not None for e in episodes],
        }

    def _enter(self, trainer: Any) -> None:
        """Note the moment of training, which all seeds follow from: a step may play several batches of episodes."""
        moment = ("train" if trainer.model.training else "evaluate", int(trainer.state.global_step))
        again = trainer.state is self._state and moment == self._moment[:2]  # a new state is a new training
        self._calls = self._calls + 1 if again else 0
        self._state, self._moment, self._turns = trainer.state, (*moment, self._calls), 0

    def close(self) -> None:
        """Close the environments."""
        while self._envs:
            self._envs.popitem()[1].close()

    def _start(self, slot: int, prompt: str) -> _Episode:
        try:
            game = json.loads(prompt)["game"]
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidConfigError(f"Expected a prompt of make_dataset, actual: {prompt!r}.") from error
        episode = _Episode()
        try:
            if slot not in self._envs:
                self._envs[slot] = self.make_env()
            env = self._envs[slot]
            if isinstance(game, str):
                seed = seed_of(self.seed, "game", game, *self._moment)
                observation, info = env.reset(seed=seed, options={"game": game})
            else:
                observation, info = env.reset(seed=game)
            episode.prompt = self.prompts.act([Turn("", observation)], self.task(info))
        except Exception as error:  # any exception of an environment fails one row only
            episode.prompt = self.prompts.act([Turn("", "")], "")
            self._fail(slot, episode, error)
        return episode

    def _turn(
        self, slot: int, episode: _Episode, tokens: Sequence[int], logprobs: Sequence[float | None], limit: int
    ) -> None:
        """Play the model's turn, and append the observation if there is room for another turn."""
        count, text = self._until_stop(tokens[: self.action_tokens])
        written = list(tokens[:count])
        episode.add(written, list(logprobs[:count]))
        try:
            observation, reward, terminated, truncated, info = self._envs[slot].step(self.prompts.read_action(text))
        except Exception as error:  # as above
            self._fail(slot, episode, error)
            return
        predicted = info.get("world_model")
        episode.turns += 1
        episode.reward += float(reward) if predicted is None else predicted["task_reward"]
        if predicted is not None:
            episode.gaps.append(predicted["reward"])
        reply = self.prompts.reply(observation, written)
        if terminated or truncated or episode.turns == self.max_turns:
            self._end(episode)
        elif len(episode.tokens) + len(reply) + self.action_tokens < limit:  # `<` leaves a token for the end
            episode.add(reply)
        else:
            episode.over = True

    def _until_stop(self, tokens: Sequence[int]) -> tuple[int, str]:
        """Return the number of tokens up to the end of the turn, which is included, and their text up to it."""
        tokenizer: Any = self.prompts.tokenizer
        text = ""
        for count in range(1, len(tokens) + 1):
            text = str(tokenizer.decode(list(tokens[:count]), skip_special_tokens=True))
            if (cut := cut_at_stop(text, self.prompts.action_stop)) is not None:
                return count, cut
        return len(tokens), text

    def _end(self, episode: _Episode) -> None:
        end = self.prompts.tokenizer.eos_token_id
        if episode.tokens[-1:] != [end]:
            episode.add([end])
        episode.over = True

    def _fail(self, slot: int, episode: _Episode, error: Exception) -> None:
        _log.warning("An episode failed and is ignored: %r", error)
        self._end(episode)
        episode.failure, episode.reward, episode.mask = error, 0.0, [0] * len(episode.tokens)
        if slot in self._envs:  # its state is unknown
            self._envs.pop(slot).close()

    def _sequence(self, episode: _Episode) -> list[int]:
        # A finished episode is generated for only to keep the processes in step, so a short text is enough.
        return episode.prompt if episode.over else [*episode.prompt, *episode.tokens]

    def _with_vllm(self, sequences: list[list[int]], trainer: Any) -> list[tuple[list[int], list[float]]]:
        # `GRPOTrainer.vllm_generation` (trl.generation.vllm_generation.VLLMGeneration, TRL 1.16), as the trainer's own
        # `_generate_single_turn` calls it, in both modes: takes token ids, returns (prompt ids, completion ids,
        # log-probabilities of the likeliest tokens, their ids). The trainer has already synchronised its weights.
        # One completion per prompt, because the server mode would otherwise use only every `num_generations`-th prompt.
        vllm = trainer.vllm_generation
        if "max_tokens" not in vllm.generation_kwargs:
            raise InvalidConfigError(
                "Expected `max_tokens` in generation_kwargs, actual: none, so a turn could be as long as an episode. "
                "Set GRPOConfig(generation_kwargs=rollout.generation_kwargs)."
            )
        _, completions, logprobs, _ = vllm.generate(prompts=sequences, images=None, num_generations=1)
        return [(list(tokens), [top[0] for top in row]) for tokens, row in zip(completions, logprobs, strict=True)]

    def _here(self, sequences: list[list[int]], trainer: Any) -> list[tuple[list[int], list[float]]]:
        check_distributed(trainer.accelerator)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if model.config._attn_implementation != ATTENTION:
            raise InvalidConfigError(
                "Expected a model of rwml_gym.agents.language.models.load_model, actual: another one. Load it there, "
                "set use_vllm=True, or pass your own `generate` to EnvironmentRollout."
            )
        if trainer.top_p != 1.0 or trainer.top_k or trainer.min_p:
            raise InvalidConfigError(
                "Expected top_p 1, top_k 0 and no min_p without vLLM, because it samples by temperature only, actual: "
                f"{trainer.top_p}, {trainer.top_k}, {trainer.min_p}. Reset them in GRPOConfig."
            )
        training = model.training
        model.eval()  # in training mode, gradient checkpointing would disable the cache
        try:
            completions = sample(
                model,
                trainer.processing_class,
                sequences,
                max_new_tokens=self.action_tokens,
                temperature=trainer.temperature,
                stop=self.prompts.action_stop,
                seed=seed_of(self.seed, "rollout", trainer.accelerator.process_index, *self._moment, self._turns),
            )
            self._turns += 1
        finally:
            model.train(training)
        return [(completion.tokens, completion.logprobs) for (completion,) in completions]


def _any(accelerator: Any, in_step: bool, running: Sequence[bool]) -> bool:
    """Return whether any episode is running, in this process or, if they keep in step, in any process."""
    if not in_step:
        return any(running)
    return bool(accelerator.gather(torch.tensor([any(running)], device=accelerator.device)).any())
