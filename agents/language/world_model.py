"""A language model that predicts the next state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import Completion, run_prompts, sample
from rwml_gym.agents.language.shared_prefix import SharedPrefix
from rwml_gym.reward.gap import GapReward, Gaps
from rwml_gym.transitions import Transition, Turn

__all__ = ["LanguageWorldModel", "score_attempts"]


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

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[str]:
        """Return the greedy prediction for each history and action; empty where the model wrote none."""
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
