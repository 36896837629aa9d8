"""Arguments of wrappers as a spec records them: plain where they can be, shared where they may be large."""

from __future__ import annotations

from typing import Any

from rwml_gym.checks import plain

__all__ = ["Shared", "recorded", "unshared"]


class Shared:
    """A user's encoder or world model in a recorded argument: a copy of a spec or of a wrapper holds the same object.

    Gymnasium copies recorded arguments with every spec of an outer wrapper, and the object may be a large model.

    Attributes:
        value: The object.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self

    def __repr__(self) -> str:
        return f"Shared({self.value!r})"


def recorded(**arguments: Any) -> dict[str, Any]:
    """Return the arguments for a spec: JSON's types where they can be, objects with state as `Shared`."""
    return {name: Shared(value) if _has_state(value) else plain(value) for name, value in arguments.items()}


def unshared(argument: Any) -> Any:
    """Return the object in a `Shared`, and any other argument unchanged."""
    return argument.value if isinstance(argument, Shared) else argument


def _has_state(value: Any) -> bool:
    return (hasattr(value, "encode") and not isinstance(value, str)) or hasattr(value, "predict")
