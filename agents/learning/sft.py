"""Supervised fine-tuning (SFT): the update, and demonstrations from recorded episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from accelerate import Accelerator
from torch import nn

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.distributed import check_distributed, sum_gradients, total
from rwml_gym.agents.learning.grpo import observation_loss
from rwml_gym.agents.learning.options import ObservationLossConfig, tokens_per_pass
from rwml_gym.transitions import Transition, TransitionDataset, Turn

__all__ = ["Demonstration", "demonstrations", "sft_update"]


def sft_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    accelerator: Accelerator,
    max_grad_norm: float = 1.0,
    micro_tokens: int | None = None,
    masks: Sequence[Sequence[int]] | None = None,
    loss: ObservationLossConfig | None = None,
) -> dict[str, float]:
    """Update the model once on n prompts and their targets, and on those of all other processes.

    Args:
        model: A PEFT model.
        optimizer: Optimizer of the adapter.
        prompts: n token lists; n can differ between processes.
        targets: n token lists.
        accelerator: The processes and their device, see `learning.distributed.check_distributed`.
        max_grad_norm: Gradients with a larger norm are clipped to this norm.
        micro_tokens: Token limit per forward pass, see `tokens_per_pass`. Affects speed and memory, not the gradient.
        masks: 1 on the target tokens to learn, 0 on others (an environment's, or arbitrary ones); all 1 if absent.
        loss: Loss of a target token; the negative log-likelihood if absent. Only its kind and clipping count.

    Returns:
        `loss`: mean loss of a target token (of the likelihood's natural logarithm); `grad_norm` before clipping.
    """
    check_distributed(accelerator)
    kind = loss or ObservationLossConfig("cross_entropy")
    masks = [[1] * len(target) for target in targets] if masks is None else masks
    (tokens_in_all,) = total(accelerator, [sum(map(sum, masks))])
    if not tokens_in_all:
        return {"loss": 0.0, "grad_norm": 0.0}
    loss_sum = 0.0
    learnt = [i for i, mask in enumerate(masks) if any(mask)]
    for rows in _passes(learnt, prompts, targets, tokens_per_pass(accelerator.device.type, micro_tokens)):
        length = max(len(targets[i]) for i in rows)
        tokens = torch.tensor([[*targets[i], *[0] * (length - len(targets[i]))] for i in rows])
        mask = torch.tensor([[*map(float, masks[i]), *[0.0] * (length - len(targets[i]))] for i in rows])
        tokens, mask = tokens.to(accelerator.device), mask.to(accelerator.device)
        logprobs = completion_logprobs(model, [prompts[i] for i in rows], tokens, mask)
        mean = observation_loss(logprobs[mask > 0], kind) / tokens_in_all
        accelerator.backward(mean)
        loss_sum += float(mean.detach())
    trainable = [p for p in model.parameters() if p.requires_grad]
    sum_gradients(accelerator, trainable)
    norm = accelerator.clip_grad_norm_(trainable, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    (loss_sum,) = total(accelerator, [loss_sum])
    return {"loss": loss_sum, "grad_norm": float(norm)}


def _passes(
    chosen: Sequence[int], prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], budget: int
) -> Iterator[list[int]]:
    """Yield the chosen rows of each pass. Similar lengths share one, so that little is padded."""
    rows: list[int] = []
    for row in sorted(chosen, key=lambda i: len(prompts[i]) + len(targets[i])):
        wider = [*rows, row]
        width = max(len(prompts[i]) for i in wider) + max(len(targets[i]) for i in wider)
        if rows and len(wider) * width > budget:
            yield rows
            wider = [row]
        rows = wider
    if rows:
        yield rows


@dataclass(frozen=True)
class Demonstration:
    """A prompt with a target and the mask of the tokens to learn.

    Attributes:
        prompt: Token ids.
        target: Token ids; for a whole episode they include the observations.
        mask: 1 on the agent's tokens, 0 on the environment's.
    """

    prompt: list[int]
    target: list[int]
    mask: list[int]


def demonstrations(
    transitions: TransitionDataset, prompts: Prompts, describe: Callable[[Transition], str] = lambda t: t.task
) -> list[Demonstration]:
    """Return recorded episodes as demonstrations.

    Args:
        transitions: Transitions of episodes to imitate, with histories as long as those in the prompts.
        prompts: Prompts of the agent, without thoughts, which transitions do not contain. With `history=0` an episode
            is one demonstration, cut at the token limit of a prompt; otherwise every turn is one.
        describe: Returns the task in the prompt of a transition, with its tools or rules.
    """
    episodes = [list(steps) for _, steps in groupby(transitions, key=lambda transition: transition.episode)]
    if prompts.history == 0:
        return [_whole(steps, prompts, describe) for steps in episodes]
    result = []
    for transition in transitions:
        target = _written(prompts, transition)
        prompt = prompts.act(transition.history, describe(transition))
        result.append(Demonstration(prompt, target, [1] * len(target)))
    return result


def _whole(steps: Sequence[Transition], prompts: Prompts, describe: Callable[[Transition], str]) -> Demonstration:
    prompt = prompts.act([Turn("", steps[0].state)], describe(steps[0]))
    target: list[int] = []
    mask: list[int] = []
    for number, step in enumerate(steps):
        written = _written(prompts, step)
        answer = prompts.reply(step.next_state, written) if number + 1 < len(steps) else []
        if len(prompt) + len(target) + len(written) > prompts.max_tokens:
            break
        target += [*written, *answer]
        mask += [1] * len(written) + [0] * len(answer)
    return Demonstration(prompt, target, mask)


def _written(prompts: Prompts, step: Transition) -> list[int]:
    return prompts.action_target(step.action, step.next_state if prompts.predictions else None)
