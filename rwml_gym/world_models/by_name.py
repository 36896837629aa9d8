"""World models by name, which predict in place of the agent."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any, cast

from rwml_gym.checks import missing
from rwml_gym.encoders.cached import DEFAULT_ENCODER
from rwml_gym.errors import InvalidConfigError
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel
from rwml_gym.world_models.embedding_mlp import EmbeddingWorldModel
from rwml_gym.world_models.retrieval import RetrievalWorldModel

__all__ = ["ENCODING", "READING", "WORLD_MODELS", "make_world_model"]

# Transitions that `MostFrequentOutcome` counts, limited so that memory stays bounded on an endless stream.
_WINDOW = 10_000

WORLD_MODELS: dict[str, Callable[[Any, Any], WorldModel]] = {
    "nothing-changes": lambda states, actions: NothingChanges(),
    "most-frequent": lambda states, actions: MostFrequentOutcome(capacity=_WINDOW),
    "retrieval": lambda states, actions: RetrievalWorldModel(encoder=states, action_encoder=actions),
    "learned": lambda states, actions: EmbeddingWorldModel(encoder=states, action_encoder=actions),
    "smollm2-alfworld": lambda states, actions: _trained("smollm2-alfworld"),
}
"""World models that can be made from their name alone.

`most-frequent`, `retrieval` and `learned` start empty and learn online. `smollm2-alfworld` is a trained language model.
"""

ENCODING = frozenset({"retrieval", "learned"})
"""Names of the world models that encode states and actions."""

READING = frozenset({"smollm2-alfworld"})
"""Names of the world models that predict text only."""


def _trained(name: str) -> WorldModel:
    """Load a language model by the name of the function that does, as Gymnasium's entry points do."""
    try:
        load = pkgutil.resolve_name("rwml_gym.agents.language.world_model:load_world_model")
    except ImportError as error:
        raise missing("torch, transformers and peft", "train") from error
    return cast(WorldModel, load(name))


def make_world_model(model: str | WorldModel, encoder: Any = DEFAULT_ENCODER, action_encoder: Any = None) -> WorldModel:
    """Make a world model from its name; return a given world model unchanged.

    Args:
        model: A name in `WORLD_MODELS`, or a world model.
        encoder: Encoder of the states, see `encoders.cached.make_encoder`, or a `SpaceEncoder`; for `ENCODING` models.
        action_encoder: Encoder of the actions; the same if absent.

    Raises:
        InvalidConfigError: If `model` is neither.
    """
    if isinstance(model, str):
        if model not in WORLD_MODELS:
            raise InvalidConfigError(f"Expected a world model out of {sorted(WORLD_MODELS)}, actual: {model!r}.")
        return WORLD_MODELS[model](encoder, action_encoder)
    if not isinstance(model, WorldModel) or isinstance(model, type):
        raise InvalidConfigError(f"Expected a world model's name or an object with `predict`, actual: {model!r}.")
    return model
