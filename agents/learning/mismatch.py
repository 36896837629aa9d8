"""How far the log-probabilities of sampling and training are apart, and from where on a run says so.

Both are the same policy, computed in two ways: sampling merges the adapter into the weights, training runs it beside
them. In float32 they differ by rounding in the last digits. In bfloat16 a merged weight keeps 8 bits, so the policy
that sampled is another one than the policy that is trained, and GRPO's gradient is off by that much.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor

__all__ = ["MAX_SAMPLING_KL", "MISMATCH", "SamplingMismatchWarning", "check_mismatch", "mismatch_sums"]

MISMATCH = ("sampling_mismatch", "sampling_kl", "sampling_outside")
MAX_SAMPLING_KL = 0.01  # nats a token


class SamplingMismatchWarning(UserWarning):
    """Warns that a policy samples with other probabilities than those it is trained with."""


def mismatch_sums(trained: Tensor, sampled: Tensor, mask: Tensor, clip: float) -> dict[str, float]:
    """Return sums over the tokens that count, by the names in `MISMATCH`, and the largest absolute difference (`max`).

    Args:
        trained: (R, T) log-probabilities of the policy in training, before its update.
        sampled: (R, T) log-probabilities in sampling.
        mask: (R, T), 1 on tokens that count.
        clip: ε; a ratio of the two probabilities outside 1 - ε … 1 + ε counts as outside.

    Returns:
        `sampling_mismatch` of absolute differences; `sampling_kl` of the estimate of the KL divergence from the policy
        that sampled to the one that is trained (Schulman's k3); `sampling_outside` of tokens with a ratio outside.
    """
    difference = ((trained - sampled) * mask).cpu().double()  # MPS has no double
    over = difference.expm1()
    return {
        "sampling_mismatch": float(difference.abs().sum()),
        "sampling_kl": float((over - difference).sum()),
        "sampling_outside": float((over.abs() > clip).sum()),
        "max": float(difference.abs().max()),
    }


def check_mismatch(means: Mapping[str, float]) -> bool:
    """Return whether the means of an update keep the limit, and warn if they do not."""
    if means["sampling_kl"] <= MAX_SAMPLING_KL:
        return True
    warnings.warn(
        f"Expected a KL divergence of at most {MAX_SAMPLING_KL} nats a token between the probabilities in sampling and "
        f"in training, actual: {means['sampling_kl']:.3g}, with {means['sampling_outside']:.1%} of the tokens outside "
        "the clip range. The update's gradient is that of another policy than the one that sampled. Use --dtype "
        "float32, in another run folder.",
        SamplingMismatchWarning,
        stacklevel=3,
    )
    return False
