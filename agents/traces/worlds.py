"""Whether two evaluations play in the same world: elsewhere, games of the same name are other games."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rwml_gym.agents.traces.folder import Trace

__all__ = ["world_arguments", "world_differences"]

_SAME = ("env_id", "domain", "user", "max_steps")
_CHOOSING = {"split", "task_types"}  # which of the named games are played, and nothing about a game


def world_arguments(arguments: Mapping[str, Any], named: bool) -> dict[str, Any]:
    """Return the arguments of an environment on which its games depend.

    Args:
        arguments: Its arguments. Folders are left out, because they differ between machines.
        named: Whether its games have names, which do not depend on the split.
    """
    left_out = {"data"} | (_CHOOSING if named else set())
    return {
        name: value
        for name, value in arguments.items()
        if name not in left_out and not (isinstance(value, str) and os.path.isabs(value))
    }


def world_differences(first: Trace, second: Trace) -> list[str]:
    """Say in what the worlds of two evaluations differ; nothing if games of the same name are the same games."""
    worlds = []
    for trace in (first, second):
        named = not all(episode.game.isdigit() for episode in trace.episodes)
        arguments = world_arguments(trace.header.get("env_arguments") or {}, named)
        worlds.append({name: trace.header.get(name) for name in _SAME} | {"env_arguments": arguments})
    ours, others = worlds
    return [f"{name} {ours[name]!r} and {others[name]!r}" for name in ours if ours[name] != others[name]]
