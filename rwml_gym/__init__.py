"""Text environments for language-model agents; importing this package registers their Gymnasium ids.

Importing is light (gymnasium and numpy only): engines, encoders and models are imported on first use.
"""

from __future__ import annotations

import gymnasium

__all__ = ["__version__"]

# Name, entry point below `rwml_gym.envs`, function of `rwml_gym.vector.env`, step budget, arguments.
_ENVIRONMENTS: list[tuple[str, str, str, int, dict[str, str]]] = [
    ("ALFWorld", "alfworld.env:ALFWorldEnv", "make_alfworld", 50, {}),
    ("ToyHouse", "toy:ToyHouseEnv", "make_toy", 20, {}),
    ("Tau2", "tau2.env:Tau2Env", "make_tau2", 100, {}),
    *(
        (f"Tau2-{domain}", "tau2.env:Tau2Env", "make_tau2", 100, {"domain": domain})
        for domain in ("airline", "retail", "telecom", "telecom-workflow", "mock")
    ),
]
for _name, _entry, _vector, _steps, _arguments in _ENVIRONMENTS:
    gymnasium.register(
        id=f"rwml_gym/{_name}-v0",
        entry_point=f"rwml_gym.envs.{_entry}",
        vector_entry_point=f"rwml_gym.vector.env:{_vector}",
        max_episode_steps=_steps,
        kwargs=_arguments,
    )


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for, since that reads files."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rwml-gym")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0.0.0+uninstalled"
