"""The way to many GPUs: TRL's `GRPOTrainer`, which distributes the update and samples with vLLM.

World-model learning fits it as it is, one prediction a completion::

    GRPOTrainer(
        model, reward_funcs=prediction_reward(gap, prompts), train_dataset=prediction_dataset(transitions, prompts)
    )

Text environments, with many turns, come in through its `rollout_func`::

    rollout = EnvironmentRollout(make_env, Prompts(tokenizer, history=0))
    GRPOTrainer(
        model, rollout_func=rollout, reward_funcs=[task_reward, world_model_reward], train_dataset=make_dataset(games)
    )

TRL 1.16 hands an (experimental) `rollout_func` the prompts of its batch, each as often as it wants completions, and
takes back one row a prompt. A row here is a whole episode as one text: the first prompt, then in turns what the model
wrote (mask 1, with the log-probabilities it was sampled with) and what the world answered (mask 0). The ids are those
that were sampled; nothing is tokenised twice. Nothing here imports TRL.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import cut_at_stop, sample
from rwml_gym.agents.language.shared_prefix import ATTENTION
from rwml_gym.agents.learning.distributed import check_distributed
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError, RWMLGymError
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, Turn

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "EnvironmentRollout",
    "Generate",
    "make_dataset",
    "prediction_dataset",
    "prediction_reward",
    "task_reward",
    "world_model_reward",
]

Generate = Callable[[list[list[int]], Any], list[tuple[list[int], list[float]]]]
"""Writes on after each of the token lists, with TRL's trainer at hand: tokens, and their log-probabilities."""

_log = logging.getLogger(__name__)


def make_dataset(games: Sequence[str | int]) -> Dataset:
    """The games as TRL's training data: a prompt that names the game, from which `EnvironmentRollout` makes the text.

    Args:
        games: Names of games, played through `options={"game": name}`, or seeds for `reset(seed=…)`.

    Raises:
        InvalidConfigError: No games.
    """
    from datasets import Dataset

    if not games:
        raise InvalidConfigError("Expected at least one game to play, actual none")
    return Dataset.from_list([{"prompt": json.dumps({"game": game})} for game in games])


def prediction_dataset(transitions: Sequence[Transition], prompts: Prompts) -> Dataset:
    """Transitions as TRL's training data for world-model learning: what is asked, and what happened.

    TRL tokenises the prompts itself. Where the tokenizer puts a beginning-of-sequence token in front, as Llama's does,
    the prompt has one, whatever its style.

    Args:
        transitions: To predict.
        prompts: What the model is shown.

    Returns:
        Columns `prompt`, `next_state` and `role`.

    Raises:
        InvalidConfigError: No transitions.
    """
    from datasets import Dataset

    if not transitions:
        raise InvalidConfigError("Expected at least one transition to predict, actual none")
    rows = [
        {
            "prompt": _as_text(prompts, prompts.predict(t.history, t.action, t.task)),
            "next_state": t.next_state,
            "role": t.role,
        }
        for t in transitions
    ]
    return Dataset.from_list(rows)


def _as_text(prompts: Prompts, tokens: list[int]) -> str:
    """The text of a prompt, without the beginning-of-sequence token that tokenising it again would put in front."""
    start = getattr(prompts.tokenizer, "bos_token_id", None)
    if start is not None and tokens[:1] == [start] and prompts.tokenizer.encode("")[:1] == [start]:
        tokens = tokens[1:]
    return prompts.tokenizer.decode(tokens)


def prediction_reward(gap: GapReward, prompts: Prompts) -> Callable[..., list[float]]:
    """Reward function of world-model learning: the gap reward of each completion, in one call of the encoder.

    Without vLLM, TRL samples on to the end of the sequence; what comes after the prediction is not read, so give
    `max_completion_length` little more than a prediction needs. With vLLM, stop there:
    `generation_kwargs={"stop": list(prompts.prediction_stop)}`.

    Args:
        gap: The reward.
        prompts: Those of the data, which know how a prediction is read.

    Returns:
        A function for `reward_funcs`; it reads the columns of `prediction_dataset`.
    """

    def gap_reward(completions: list[str], next_state: list[str], role: list[str], **_: Any) -> list[float]:
        return gap([prompts.read_prediction(text) for text in completions], next_state, role).rewards.tolist()

    return gap_reward


def task_reward(episode_reward: list[float], episode_failed: list[bool], **_: Any) -> list[float | None]:
    """Reward function: what the environment gave in the episode; failed ones are left out of their group."""
    return [None if failed else reward for reward, failed in zip(episode_reward, episode_failed, strict=True)]


def world_model_reward(
    episode_world_model: list[float | None], episode_failed: list[bool], **_: Any
) -> list[float | None]:
    """Reward function: the mean world-model reward of the episode's predictions; failed ones are left out.

    Raises:
        InvalidConfigError: The environment gives none.
    """
    rewards = [None if f else reward for reward, f in zip(episode_world_model, episode_failed, strict=True)]
    if all(reward is None for reward in rewards):
        raise InvalidConfigError(
            'Expected info["world_model"] from the environment, actual none: let make_env wrap it in '
            'WorldModelRewardWrapper(env, mode="report").'
        )
    return rewards


@dataclass
class _Episode:
    """A row in the making."""

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
        """Appends what the model wrote, or, without log-probabilities, what others did."""
        self.tokens += tokens
        self.logprobs += [0.0] * len(tokens) if logprobs is None else logprobs
        self.mask += [int(logprobs is not None)] * len(tokens)


class EnvironmentRollout:
    """A `rollout_func` that plays all rows' episodes side by side; rows of one prompt are episodes of one game.

    Beside TRL's own keys it returns `episode_reward` (the task's), `episode_world_model` (mean reward of the
    predictions, `None` where the environment has no `WorldModelRewardWrapper`), `episode_turns` and `episode_failed`,
    which reward functions can ask for by name. An episode in which the environment raises is no crash: it is reported
    in the log, and its row has reward 0 and counts for nothing. Only if all of them fail, that is an error.

    An episode that came to its end closes with the end-of-sequence token (mask 0), by which TRL tells it from one that
    `max_completion_length` cut off.

    Args:
        make_env: Makes a text environment, with its step budget.
        prompts: What the model is shown and how its answers are read; its `history` plays no part, episodes are shown
            as a whole.
        generate: Writes the model's turns; if absent, TRL's vLLM where the trainer uses it, else this package's own
            sampling on the trainer's model, which must come from `models.load_model`.
        max_turns: Longest episode.
        action_tokens: Longest turn of the model, in tokens.
        task: The task of an episode from the info of its reset.
        seed: Of the sampling, where it is done here.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[str, Any]],
        prompts: Prompts,
        generate: Generate | None = None,
        max_turns: int = 30,
        action_tokens: int = 16,
        task: Callable[[dict[str, Any]], str] = lambda info: str(info.get("task", "")),
        seed: int = 0,
    ) -> None:
        if max_turns < 1 or action_tokens < 1:
            raise InvalidConfigError(
                f"Expected max_turns and action_tokens of at least 1, actual {max_turns} and {action_tokens}"
            )
        self.make_env, self.prompts, self.generate = make_env, prompts, generate
        self.max_turns, self.action_tokens, self.task, self.seed = max_turns, action_tokens, task, seed
        self._envs: dict[int, gym.Env[str, Any]] = {}
        self._calls = 0

    @property
    def generation_kwargs(self) -> dict[str, Any]:
        """What to give `trl.GRPOConfig` under this name with vLLM: a completion there is a turn, not an episode."""
        return {"max_tokens": self.action_tokens, "stop": [s for s in self.prompts.action_stop if isinstance(s, str)]}

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Plays one episode a prompt.

        Args:
            prompts: Of `make_dataset`, as TRL repeats them.
            trainer: TRL's `GRPOTrainer`.

        Returns:
            TRL's `prompt_ids`, `completion_ids`, `logprobs` and `env_mask`, and the fields for reward functions.

        Raises:
            InvalidConfigError: Settings of the trainer that do not go with episodes of turns.
            RWMLGymError: All episodes failed.
        """
        if trainer.max_completion_length <= self.action_tokens:
            raise InvalidConfigError(
                f"Expected a max_completion_length that holds a whole episode, actual {trainer.max_completion_length} "
                f"with action_tokens {self.action_tokens}: raise it in GRPOConfig."
            )
        generate = self.generate or (self._with_vllm if trainer.use_vllm else self._here)
        episodes = [self._start(slot, prompt) for slot, prompt in enumerate(prompts)]
        # vLLM gathers the prompts of all processes, so they must ask equally often for equally many.
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
                f"All {len(episodes)} episodes failed, the first one with {failed[0].failure!r}. See that make_env "
                "plays the games of make_dataset."
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

    def close(self) -> None:
        """Closes the environments."""
        while self._envs:
            self._envs.popitem()[1].close()

    def _start(self, slot: int, prompt: str) -> _Episode:
        try:
            game = json.loads(prompt)["game"]
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidConfigError(f"Expected a prompt of make_dataset, actual {prompt!r}") from error
        episode = _Episode()
        try:
            if slot not in self._envs:
                self._envs[slot] = self.make_env()
            env = self._envs[slot]
            observation, info = env.reset(options={"game": game}) if isinstance(game, str) else env.reset(seed=game)
            episode.prompt = self.prompts.act([Turn("", observation)], self.task(info))
        except Exception as error:  # whatever a world raises is the failure of one row
            episode.prompt = self.prompts.act([Turn("", "")], "")
            self._fail(slot, episode, error)
        return episode

    def _turn(
        self, slot: int, episode: _Episode, tokens: Sequence[int], logprobs: Sequence[float | None], limit: int
    ) -> None:
        """Plays what the model wrote, and lets the model hear what comes of it if there is room for one more turn."""
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
        elif len(episode.tokens) + len(reply) + self.action_tokens < limit:  # one less, for the end
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
        _log.warning("An episode failed and is left out: %r", error)
        self._end(episode)
        episode.failure, episode.reward, episode.mask = error, 0.0, [0] * len(episode.tokens)
        if slot in self._envs:  # nobody knows in what state it is
            self._envs.pop(slot).close()

    def _sequence(self, episode: _Episode) -> list[int]:
        # One that is over is only asked about so that all processes ask alike: the shorter the better.
        return episode.prompt if episode.over else [*episode.prompt, *episode.tokens]

    def _with_vllm(self, sequences: list[list[int]], trainer: Any) -> list[tuple[list[int], list[float]]]:
        # `GRPOTrainer.vllm_generation` (trl.generation.vllm_generation.VLLMGeneration, TRL 1.16), as the trainer's own
        # `_generate_single_turn` calls it, in both modes: takes token ids, returns (prompt ids, completion ids,
        # log-probabilities of the likeliest tokens, their ids). The trainer has synchronised its weights already.
        # One completion a prompt: its server mode would take every `num_generations`-th prompt alone otherwise.
        vllm = trainer.vllm_generation
        if "max_tokens" not in vllm.generation_kwargs:
            raise InvalidConfigError(
                "Expected max_tokens among the generation_kwargs, actual none: each turn would be as long as an "
                "episode. Set GRPOConfig(generation_kwargs=rollout.generation_kwargs)."
            )
        _, completions, logprobs, _ = vllm.generate(prompts=sequences, images=None, num_generations=1)
        return [(list(tokens), [top[0] for top in row]) for tokens, row in zip(completions, logprobs, strict=True)]

    def _here(self, sequences: list[list[int]], trainer: Any) -> list[tuple[list[int], list[float]]]:
        check_distributed(trainer.accelerator)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if model.config._attn_implementation != ATTENTION:
            raise InvalidConfigError(
                "Expected a model of rwml_gym.agents.language.models.load_model, actual another one: load it so, set "
                "use_vllm=True, or give EnvironmentRollout a `generate` of your own."
            )
        if trainer.top_p != 1.0 or trainer.top_k or trainer.min_p:
            raise InvalidConfigError("Expected top_p 1, top_k 0 and no min_p without vLLM: temperature alone is known.")
        self._calls += 1
        training = model.training
        model.eval()  # in training, gradient checkpointing would take away the cache
        try:
            completions = sample(
                model,
                trainer.processing_class,
                sequences,
                max_new_tokens=self.action_tokens,
                temperature=trainer.temperature,
                stop=self.prompts.action_stop,
                seed=seed_of(self.seed, "rollout", trainer.accelerator.process_index, self._calls),
            )
        finally:
            model.train(training)
        return [(completion.tokens, completion.logprobs) for (completion,) in completions]


def _any(accelerator: Any, in_step: bool, running: Sequence[bool]) -> bool:
    """Whether an episode goes on: in any of the processes, if they keep in step."""
    if not in_step:
        return any(running)
    return bool(accelerator.gather(torch.tensor([any(running)], device=accelerator.device)).any())
