"""The options of the updates, without torch, so that the command line starts quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from rwml_gym.agents.ranges import above, at_least, within
from rwml_gym.errors import InvalidConfigError

__all__ = [
    "CLIP_HIGHER",
    "GRPOConfig",
    "GapDelivery",
    "GapTokens",
    "LossType",
    "ObservationLoss",
    "ObservationLossConfig",
    "Placebo",
    "SFTConfig",
    "SequenceOf",
    "TaskTokens",
    "TokenLoss",
    "check_length",
    "tokens_per_pass",
    "updates",
]

LossType = Literal["grpo", "dr_grpo", "dapo"]
SequenceOf = Literal["episode", "turn"]
GapDelivery = Literal["mean_only", "z_score"]
GapTokens = Literal["prediction", "all"]
TaskTokens = Literal["all", "action"]
ObservationLoss = Literal["off", "cross_entropy", "clipped_mae"]
TokenLoss = Literal["cross_entropy", "clipped_mae"]
Placebo = Literal["none", "shuffled", "random"]
"""What stands in the place of the world's answer to show what the truth adds: nothing, the answer to another turn, or
random tokens. The other turn is of the same task type in a policy's training, and of the same message role in stage 1,
whose transitions name no task type."""


@dataclass(frozen=True)
class GRPOConfig:
    """Options of the GRPO update of a batch of groups.

    Attributes:
        loss_type: How token losses are averaged: `grpo` per completion, then over completions; `dapo` over all tokens
            of the batch; `dr_grpo` by a constant length, which removes the bias towards long wrong answers.
        clip: ε of the clipped ratio below 1.
        clip_high: ε of the clipped ratio above 1 (DAPO's clip-higher); `clip` if absent.
        beta: Weight of the KL divergence to the reference policy; at 0 the reference does not run.
        scale_rewards: Whether to divide advantages by the group's standard deviation; the paper of `dr_grpo` does not.
        learning_rate: Learning rate of AdamW.
        max_grad_norm: Gradients with a larger norm are clipped to this norm.
        temperature: Temperature of sampling. The update's policy is the tempered one that sampled. Above 1, more
            groups have a reward difference; the paper samples at 1.
        iterations: Number of updates on the same groups (μ); the ratio differs from 1 from the second update on.
        micro_tokens: Token limit per forward pass, of SFT, too, see `tokens_per_pass`. It affects speed and memory, not
            the gradient.
    """

    loss_type: LossType = "dapo"
    clip: float = 0.2
    clip_high: float | None = None
    beta: float = 0.01
    scale_rewards: bool = True
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    iterations: int = 1
    micro_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.loss_type not in ("grpo", "dr_grpo", "dapo"):
            names = ["grpo", "dr_grpo", "dapo"]
            raise InvalidConfigError(f"Expected `loss_type` among {names}, actual: {self.loss_type!r}.")
        for name in ("iterations", "micro_tokens"):
            if getattr(self, name) is not None and not 1 <= getattr(self, name) < math.inf:
                raise InvalidConfigError(f"Expected `{name}` of at least 1, actual: {getattr(self, name)}.")
        at_least(self, 0, "beta")
        within(self, 0, 1, "clip")
        above(self, 0, "clip_high", "learning_rate", "max_grad_norm", "temperature")

    def tokens_per_pass(self, device_type: str) -> int:
        """Return the token limit of a forward pass, see `tokens_per_pass`."""
        return tokens_per_pass(device_type, self.micro_tokens)


def tokens_per_pass(device_type: str, micro_tokens: int | None = None) -> int:
    """Return the token limit of a forward pass with gradients; at least one row or group always runs.

    Args:
        device_type: Type of the device.
        micro_tokens: A limit that was chosen. If absent, 512 on a CPU, whose caches are small, else 16384.
    """
    return micro_tokens or (512 if device_type == "cpu" else 16_384)


CLIP_HIGHER = GRPOConfig(loss_type="dapo", clip=0.2, clip_high=0.28, beta=0.0, scale_rewards=False)
"""GRPO as it is mostly run since its paper: clip-higher and the mean over all tokens (DAPO, arXiv 2503.14476), no
division by the standard deviation (Dr. GRPO, arXiv 2503.20783), and no KL term (both)."""


@dataclass(frozen=True)
class SFTConfig:
    """Options of next-state SFT.

    Attributes:
        steps: Number of updates; 60 if neither it nor `epochs` is given.
        epochs: How often the data are gone through, instead of `steps`; see `updates`.
        batch_size: Number of transitions per update.
        learning_rate: Peak learning rate of AdamW, after a linear warm-up.
        warmup: Number of warm-up steps.
        decay: The last step's share of the peak, which is reached linearly after the warm-up; 1 for a constant rate.
        balance: Whether each batch is spread evenly over the outcome types: the actions, and what was refused.
        max_grad_norm: Gradients with a larger norm are clipped to this norm.
        empty_thought: Whether the target of a chat prompt, which asks for a thought, begins with an empty one, as in
            the paper: no reasoning is learnt. Prompts of style `transcript` ask for none.
        loss: Loss of a target's token: `cross_entropy`, or `clipped_mae`, see `ObservationLossConfig`.
        margin: Of `clipped_mae`: a token whose probability is above 1 - `margin` has no gradient; 0 for no limit.
        clip: Of `clipped_mae`: a token whose probability is below 1 - `clip` has no gradient; 1 for no limit.
        mask_arbitrary: Whether the arbitrary parts of targets (`nuisance` of a world-model run) have no loss.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 8
    learning_rate: float = 5e-4
    warmup: int = 4
    decay: float = 1.0
    balance: bool = False
    max_grad_norm: float = 1.0
    empty_thought: bool = True
    loss: TokenLoss = "cross_entropy"
    margin: float = 0.2
    clip: float = 1.0
    mask_arbitrary: bool = False

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size")
        at_least(self, 0, "steps", "warmup")
        above(self, 0, "learning_rate", "max_grad_norm", "epochs")
        within(self, 0, 1, "decay")
        check_length(self.steps, self.epochs)
        if self.loss not in get_args(TokenLoss):
            raise InvalidConfigError(f"Expected loss among {list(get_args(TokenLoss))}, actual: {self.loss!r}.")
        changed = sorted({"margin", "clip"} - _unchanged(self))
        if changed and self.loss != "clipped_mae":
            raise InvalidConfigError(
                f"Expected {' and '.join(changed)} with the loss 'clipped_mae', actual: {self.loss!r}. Change the "
                f"loss, or remove {' and '.join(changed)}."
            )
        _ = self.token_loss  # raises if margin and clip do not fit

    @property
    def changed(self) -> list[str]:
        """The options that differ from their defaults."""
        unchanged = _unchanged(self)
        return [field.name for field in fields(self) if field.name not in unchanged]

    @property
    def token_loss(self) -> ObservationLossConfig:
        """The loss of a target's token; its weight is 1."""
        return ObservationLossConfig(self.loss, weight=1.0, margin=self.margin, clip=self.clip)

    def updates(self, size: int) -> int:
        """Return the number of updates on so many transitions."""
        return updates(self.steps, self.epochs, size, self.batch_size, 60)


@dataclass(frozen=True)
class ObservationLossConfig:
    """The world's answers as targets of an auxiliary loss, in the forward pass of the policy update.

    A reward can only choose among predictions that are sampled, and it competes with the task's. A loss needs neither
    (ECHO, arXiv 2605.24517; PaW, arXiv 2606.02388; compared in arXiv 2607.21273, where the same loss on shuffled
    targets gained as much: see `placebo`).

    Attributes:
        kind: `off`; `cross_entropy`, -log p of each token; or `clipped_mae`, 1 - p between `margin` and `clip`, whose
            gradient vanishes for tokens that cannot be known.
        weight: Factor of the mean over the answers' tokens. ECHO finds 0.05 good and 0.2 harmful.
        decay: Whether the factor falls linearly to 0 until the last update.
        margin: Of `clipped_mae`: a token whose probability is above 1 - `margin` is known well enough and has no
            gradient; 0 for no limit. PaW's is 0.2, as C. Wolfe's "Agentic World Models" (2026) reports it.
        clip: Of `clipped_mae`: a token whose probability is below 1 - `clip` has no gradient; 1 for no limit.
        by_failure: Whether each game's factor is multiplied by the share of its episodes that were lost: answers count
            most where the reward teaches least. PaW balances both in this direction; its formula may be another.
        turns: Share of a game's turns whose answers are learnt, those with the highest entropy of the action as PaW
            chooses them (0.75 there); measured by the mean -log p of the action's sampled tokens. 1 for all.
        placebo: What is learnt in place of the answers. A gain without this control is no evidence.
    """

    kind: ObservationLoss = "off"
    weight: float = 0.05
    decay: bool = False
    margin: float = 0.2
    clip: float = 1.0
    by_failure: bool = False
    turns: float = 1.0
    placebo: Placebo = "none"

    def __post_init__(self) -> None:
        for name, values in (("kind", get_args(ObservationLoss)), ("placebo", get_args(Placebo))):
            if getattr(self, name) not in values:
                raise InvalidConfigError(
                    f"Expected {name} of the observation loss among {list(values)}, actual: {getattr(self, name)!r}."
                )
        above(self, 0, "weight")
        within(self, 0, 1, "clip", "turns")
        at_least(self, 0, "margin")
        if self.margin >= self.clip:
            raise InvalidConfigError(
                f"Expected a margin below clip, actual: {self.margin} and {self.clip}. No token would have a gradient: "
                "lower the margin."
            )
        if not self.is_on and (changed := sorted(set(vars(self)) - {"kind"} - _unchanged(self))):
            raise InvalidConfigError(
                f"Expected an observation loss with {changed}, actual: kind 'off'. Set observation_loss.kind to "
                "cross_entropy or clipped_mae."
            )

    @property
    def is_on(self) -> bool:
        """Whether there is such a loss."""
        return self.kind != "off"

    def weight_at(self, number: int, steps: int) -> float:
        """Return the factor in update `number`, from 0, of `steps`."""
        return self.weight * ((steps - number) / steps if self.decay else 1.0)


def _unchanged(config: ObservationLossConfig | SFTConfig) -> set[str]:
    return {field.name for field in fields(config) if getattr(config, field.name) == field.default}


def check_length(steps: int | None, epochs: float | None) -> None:
    """Raise `InvalidConfigError` if the length of a training is given both in steps and in epochs."""
    if steps is not None and epochs is not None:
        raise InvalidConfigError(
            f"Expected steps or epochs, actual: steps {steps} and epochs {epochs}. Leave one out (None)."
        )


def updates(steps: int | None, epochs: float | None, size: int, batch_size: int, default: int) -> int:
    """Return the number of updates of a training.

    Args:
        steps: That number, if it is configured.
        epochs: How often the data are gone through, if that is configured.
        size: Number of the data.
        batch_size: How many of them an update takes.
        default: The number if neither is configured.

    >>> updates(None, 2, 15_813, 32, default=100), updates(None, 2, 5_578, 32, default=100)
    (988, 349)
    """
    if epochs is not None:
        return max(1, round(epochs * size / batch_size))
    return default if steps is None else steps
