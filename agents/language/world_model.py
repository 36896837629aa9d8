"""A language model that predicts the next state, and loading a trained one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.instructions import PromptWorld
from rwml_gym.agents.language.models import load_adapter, load_model, merged
from rwml_gym.agents.language.prompts import Prompts, PromptStyle
from rwml_gym.agents.language.sampling import Completion, run_prompts, sample
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.language.shared_prefix import SharedPrefix
from rwml_gym.errors import ModelNotFoundError
from rwml_gym.files import read_regular
from rwml_gym.reward.gap import GapReward, Gaps
from rwml_gym.transitions import Transition, Turn

__all__ = [
    "PACKAGED_WORLD_MODELS",
    "WORLD_MODEL_FILE",
    "LanguageWorldModel",
    "WorldModelSettings",
    "load_world_model",
    "score_attempts",
    "world_model_folder",
    "world_model_settings",
]

PACKAGED_WORLD_MODELS = {"smollm2-alfworld": Path(__file__).parent / "adapters" / "smollm2-alfworld"}
"""Name → folder of the adapter, of the world models that come with the package."""
WORLD_MODEL_FILE = "world_model.json"
"""In an adapter's folder: the base model, and what its prompts hold."""


@dataclass(frozen=True)
class WorldModelSettings:
    """What a trained world model needs beside its adapter, see `Prompts`.

    Attributes:
        model: The base model, see `language.models.load_model`.
        world: What kind of world it predicts.
        max_new_tokens: Token limit of a prediction.
        prompt_style: Style of the prompts.
        history: Window H, in turns.
        max_prompt_tokens: Token limit of a prompt.
        max_state_characters: Prompts show only the beginning of a longer state; 0 for no limit.
        empty_thought: Whether an empty thought precedes the prediction.
        json_schema: Whether JSON is predicted as its schema.
    """

    model: str
    world: PromptWorld
    max_new_tokens: int
    prompt_style: PromptStyle
    history: int
    max_prompt_tokens: int
    max_state_characters: int = 0
    empty_thought: bool = True
    json_schema: bool = False


class LanguageWorldModel:
    """A `WorldModel` that asks a language model for the next state.

    Args:
        model: A model of `language.models.load_model`, with or without adapter.
        tokenizer: The model's tokenizer.
        prompts: Builds the model's prompts and reads its predictions.
        max_new_tokens: Token limit of a prediction.
        batch_rows: Number of predictions sampled in parallel.
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

    def __deepcopy__(self, memo: dict[int, Any]) -> LanguageWorldModel:
        """Return itself: predicting changes nothing, and copies of environments share one model."""
        return self

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[str]:
        """Return the greedy prediction for each history and action; empty where the model wrote none."""
        prompts = self._questions(histories, actions, tasks)
        return [self.prompts.read_prediction(c.text) for (c,) in self._sample(prompts, 1, 0.0, 0)]

    def predict_counted(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[tuple[str, int]]:
        """Return what `predict` does, each with the number of tokens written; up to rounding, it is the same.

        Several actions after the same history share its keys and values, so that each costs little more than its
        answer: asked for 33 actions of an ALFWorld state, this took a third of the time.
        """
        prompts = self._questions(histories, actions, tasks)
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, history in enumerate(histories):
            places.setdefault((tasks[place] if tasks is not None else "", *history), []).append(place)
        alone = [group[0] for group in places.values() if len(group) == 1]
        written = dict(zip(alone, self._sample([prompts[i] for i in alone], 1, 0.0, 0), strict=True))
        found = {place: completion for place, (completion,) in written.items()}
        for group in (group for group in places.values() if len(group) > 1):
            for first in range(0, len(group), self.batch_rows):
                some = group[first : first + self.batch_rows]
                found |= dict(zip(some, self._of_one_history([prompts[i] for i in some]), strict=True))
        completions = [found[place] for place in range(len(prompts))]
        return [(self.prompts.read_prediction(c.text), len(c.tokens)) for c in completions]

    def predicting(self) -> AbstractContextManager[Any]:
        """Return a context for many calls in which the weights do not change: an adapter is merged once."""
        return merged(self.model)

    def _questions(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None
    ) -> list[list[int]]:
        tasks = tasks if tasks is not None else [""] * len(actions)
        return [self.prompts.predict(h, a, t) for h, a, t in zip(histories, actions, tasks, strict=True)]

    def _of_one_history(self, prompts: Sequence[Sequence[int]]) -> list[Completion]:
        return Sessions(self.model, self.tokenizer).generate(
            [Request(slot, prompt) for slot, prompt in enumerate(prompts)],
            max_new_tokens=self.max_new_tokens,
            temperature=0.0,
            stop=self.prompts.prediction_stop,
        )

    def attempts(
        self,
        transitions: Sequence[Transition],
        n: int,
        temperature: float = 1.0,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
        places: Sequence[int] | None = None,
        prefixes: Sequence[SharedPrefix] | None = None,
    ) -> list[list[Completion]]:
        """Return T lists of `n` sampled completions; `Prompts.read_prediction` reads a prediction from each text.

        Args:
            transitions: T transitions.
            n: Number of completions per transition.
            temperature: Sampling temperature; 0 is greedy.
            seed: Seed of the sampling.
            progress: Called with the number of transitions completed since the last call.
            places: Index of each transition in the batch that these are a share of, see `sampling.sample`.
            prefixes: The transitions' prompts, already run by `run_prompts`; see `sampling.sample`.
        """
        return self._sample(self._prompts(transitions), n, temperature, seed, progress, places, prefixes)

    def run_prompts(self, transitions: Sequence[Transition]) -> list[SharedPrefix]:
        """Run the transitions' prompts once for sampling and update, see `sampling.run_prompts`."""
        return run_prompts(self.model, self._prompts(transitions))

    def _prompts(self, transitions: Sequence[Transition]) -> list[list[int]]:
        return [self.prompts.ask(t) for t in transitions]

    def _sample(
        self,
        prompts: list[list[int]],
        n: int,
        temperature: float,
        seed: int,
        progress: Callable[[int], None] | None = None,
        places: Sequence[int] | None = None,
        prefixes: Sequence[SharedPrefix] | None = None,
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
            places=places,
            prefixes=prefixes,
        )


def load_world_model(
    name: str | Path, model: str | None = None, device: torch.device | str | None = None, dtype: str = "auto"
) -> LanguageWorldModel:
    """Load a trained world model with the prompts that it was trained on.

    Args:
        name: A name in `PACKAGED_WORLD_MODELS`, or an adapter's folder that `rwml-gym train rwml` left, such as
            `runs/demo/adapters/rwml`.
        model: Its base model, where that is in another folder than the adapter's `world_model.json` says.
        device: Where to compute; the default device if absent.
        dtype: See `language.models.load_model`.

    Raises:
        ModelNotFoundError: There is no such adapter, it has no `world_model.json`, or its base model is not there.
    """
    folder, settings = world_model_folder(name), world_model_settings(name)
    base, tokenizer = load_model(model or settings.model, dtype, device)
    prompts = Prompts(
        tokenizer,
        settings.prompt_style,
        settings.history,
        settings.max_prompt_tokens,
        settings.world,
        settings.max_state_characters,
        empty_thought=settings.empty_thought,
        json_schema=settings.json_schema,
    )
    return LanguageWorldModel(load_adapter(base, folder), tokenizer, prompts, settings.max_new_tokens)


def world_model_folder(name: str | Path) -> Path:
    """Return the adapter's folder of a world model, see `load_world_model`; it need not be there."""
    return PACKAGED_WORLD_MODELS.get(str(name), Path(name))


def world_model_settings(name: str | Path) -> WorldModelSettings:
    """Read what the prompts of a trained world model hold, see `load_world_model`.

    Raises:
        ModelNotFoundError: There is no such adapter, or it has no `world_model.json`.
    """
    path = world_model_folder(name) / WORLD_MODEL_FILE
    try:
        return TypeAdapter(WorldModelSettings).validate_json(read_regular(path), strict=True, extra="forbid")
    except (OSError, ValueError) as error:  # pydantic's are such
        raise ModelNotFoundError(
            f"Expected a world model among {sorted(PACKAGED_WORLD_MODELS)}, or a folder with an adapter and "
            f"{WORLD_MODEL_FILE}, actual: {str(name)!r}: {type(error).__name__}. Train one (`rwml-gym train rwml`), or "
            "load its adapter with `load_adapter` and choose the prompts yourself."
        ) from error


def score_attempts(
    prompts: Prompts, transitions: Sequence[Transition], attempts: Sequence[Sequence[Completion]], gap: GapReward
) -> Gaps:
    """Score n attempts at each of T transitions.

    Returns:
        Distances and rewards as arrays of shape (T, n).
    """
    gaps = gap(
        [prompts.read_prediction(c.text) for row in attempts for c in row],
        [t.next_state for t, row in zip(transitions, attempts, strict=True) for _ in row],
        [t.role for t, row in zip(transitions, attempts, strict=True) for _ in row],
    )
    shape = (len(attempts), len(attempts[0]) if attempts else 0)
    return Gaps(gaps.distances.reshape(shape), gaps.rewards.reshape(shape))
