"""Which perturbations fit which transitions: words, results of tools, or both in a mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rwml_gym.diagnostics.perturbations.schema import SCHEMAS
from rwml_gym.diagnostics.perturbations.text import TEXT, Perturbation, Perturbations
from rwml_gym.diagnostics.perturbations.tool import TOOL_RESULTS
from rwml_gym.reward.distances import TOOL_ROLE
from rwml_gym.reward.views import ViewName
from rwml_gym.transitions import Transition

__all__ = ["perturbations_for"]


def perturbations_for(transitions: Sequence[Transition], view: ViewName = "raw") -> Perturbations:
    """Return the perturbations for transitions: tool results as data, others as text; each by its rules in a mix.

    Args:
        transitions: The transitions.
        view: What of the results is compared; the transitions are in this view already (`views.in_view`).
    """
    results = SCHEMAS if view == "schema" else TOOL_RESULTS
    tools = {transition.role == TOOL_ROLE for transition in transitions}
    if len(tools) < 2:
        return results if tools == {True} else TEXT

    def only(tool: bool, rule: Perturbation) -> Perturbation:
        return lambda of, pool, rng: rule(of, pool, rng) if (of.role == TOOL_ROLE) == tool else of.next_state

    def both(words: Mapping[str, Perturbation], data: Mapping[str, Perturbation]) -> dict[str, Perturbation]:
        return {
            **{name: only(False, rule) for name, rule in words.items()},
            **{f"tool: {name}": only(True, rule) for name, rule in data.items()},
        }

    return Perturbations(both(TEXT.same, results.same), both(TEXT.different, results.different))
