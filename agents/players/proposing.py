"""Several actions of a language model for one turn, to choose among."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import Choices
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.players.base import Decoding
from rwml_gym.agents.players.imagining import Proposal
from rwml_gym.agents.seeding import seed_of
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Turn

__all__ = ["ModelProposals"]


@dataclass(frozen=True)
class ModelProposals:
    """Samples actions of a language model (`imagining.Proposals`).

    A slot's samples share the keys and values of its prompt, and depend on the episode's seed and the turn, not on the
    rest of the batch.

    Attributes:
        sessions: The model with what it keeps of each slot.
        prompts: Builds the prompts and reads the model's answers; without thoughts and predictions.
        count: Number of samples in each turn.
        temperature: Sampling temperature; with 0 all samples are the same.
        action_tokens: Token limit of an action.
        show_policy: Whether the prompt holds the policy and the tools' schemas, see `describe_task`.
        decoding: `free` text, or `constrained` to the admissible actions.
    """

    sessions: Sessions
    prompts: Prompts
    count: int
    temperature: float = 1.0
    action_tokens: int = 16
    show_policy: bool = False
    decoding: Decoding = "free"

    def __post_init__(self) -> None:
        if self.decoding == "scored":
            raise InvalidConfigError(
                "Expected the decoding free or constrained for several samples, actual: 'scored', which scores the "
                "admissible actions once. Choose another --decoding."
            )
        self.prompts.action_target("look")  # raises if the prompts ask for more than an action

    @classmethod
    def of(
        cls, model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, **settings: Any
    ) -> ModelProposals:
        """Make them from a model of `language.models.load_model`; `settings` are further attributes."""
        return cls(Sessions(model, tokenizer), prompts, **settings)

    def propose(
        self,
        slots: Sequence[int],
        turns: Sequence[Sequence[Turn]],
        infos: Sequence[dict[str, Any]],
        seeds: Sequence[int],
    ) -> list[list[Proposal]]:
        """Sample the actions of some slots (`imagining.Proposals.propose`)."""
        requests, longest = [], self.action_tokens
        for slot, episode, info, seed in zip(slots, turns, infos, seeds, strict=True):
            prompt = self.prompts.act(episode, describe_task(info, self.show_policy))
            admissible = () if self.decoding == "free" else admissible_actions(info)
            options = [self.prompts.action_target(action) for action in admissible]
            longest = max([longest, *map(len, options)])  # never truncate a constrained choice
            for i in range(self.count):
                choices = Choices(options) if options else None
                requests.append(Request(slot * self.count + i, prompt, seed_of(seed, len(episode), i), choices))
        completions = self.sessions.generate(
            requests, max_new_tokens=longest, temperature=self.temperature, stop=self.prompts.action_stop
        )
        written = [
            Proposal(self.prompts.read_action(completion.text), len(request.prompt), len(completion.tokens))
            for request, completion in zip(requests, completions, strict=True)
        ]
        return [written[i : i + self.count] for i in range(0, len(written), self.count)]

    def forget(self, slots: Sequence[int]) -> None:
        """Release what is kept of these slots."""
        self.sessions.forget([slot * self.count + i for slot in slots for i in range(self.count)])

    def playing(self) -> AbstractContextManager[Any]:
        """Merge the adapter into the weights once, not at every turn."""
        return merged(self.sessions.model)
