"""World models by name, for those who predict in the agent's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rwml_gym.encoders.cached import DEFAULT_ENCODER
from rwml_gym.errors import InvalidConfigError
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel
from rwml_gym.world_models.embedding_mlp import EmbeddingWorldModel
from rwml_gym.world_models.retrieval import RetrievalWorldModel

__all__ = ["ENCODING", "WORLD_MODELS", "make_world_model"]

# Of the transitions that the most frequent outcome is counted over, so that memory is bounded on an endless stream.
_WINDOW = 10_000

WORLD_MODELS: dict[str, Callable[[Any, Any], WorldModel]] = {
    "nothing-changes": lambda states, actions: NothingChanges(),
    "most-frequent": lambda states, actions: MostFrequentOutcome(capacity=_WINDOW),
    "retrieval": lambda states, actions: RetrievalWorldModel(encoder=states, action_encoder=actions),
    "learned": lambda states, actions: EmbeddingWorldModel(encoder=states, action_encoder=actions),
}
"""World models that can be made from their name alone; all but the first start with nothing and learn as they go."""

ENCODING = frozenset({"retrieval", "learned"})
"""Those of them that encode states and actions."""


def make_world_model(model: str | WorldModel, encoder: Any = DEFAULT_ENCODER, action_encoder: Any = None) -> WorldModel:
    """Make a world model from its name; one that is given is returned as it is.

    Args:
        model: A name in `WORLD_MODELS`, or a world model.
        encoder: Of the states: see `embedding.make_encoder`, or a `SpaceEncoder`; for those that need one.
        action_encoder: Of the actions; the same if absent.

    Returns:
        The world model.

    Raises:
        InvalidConfigError: If it is neither.
    """
    if isinstance(model, str):
        if model not in WORLD_MODELS:
            raise InvalidConfigError(f"Expected a world model's name of {sorted(WORLD_MODELS)}, actual: {model!r}.")
        return WORLD_MODELS[model](encoder, action_encoder)
    if not isinstance(model, WorldModel) or isinstance(model, type):
        raise InvalidConfigError(f"Expected a world model's name or an object with `predict`, actual: {model!r}.")
    return model
