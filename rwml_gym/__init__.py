"""Text environments for language-model agents; importing this package registers their Gymnasium ids.

Importing is light (gymnasium and numpy only): engines, encoders and models are imported on first use.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import gymnasium

__all__ = ["__version__"]

try:
    __version__ = version("rwml-gym")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+uninstalled"

gymnasium.register(
    id="rwml_gym/ALFWorld-v0",
    entry_point="rwml_gym.envs.alfworld.env:ALFWorldEnv",
    vector_entry_point="rwml_gym.vector.env:make_alfworld",
    max_episode_steps=50,
)

gymnasium.register(id="rwml_gym/ToyHouse-v0", entry_point="rwml_gym.envs.toy:ToyHouseEnv", max_episode_steps=20)

for _domain in (None, "airline", "retail", "telecom", "telecom-workflow", "mock"):
    gymnasium.register(
        id="rwml_gym/Tau2-v0" if _domain is None else f"rwml_gym/Tau2-{_domain}-v0",
        entry_point="rwml_gym.envs.tau2.env:Tau2Env",
        vector_entry_point="rwml_gym.vector.env:make_tau2",
        max_episode_steps=100,
        kwargs={} if _domain is None else {"domain": _domain},
    )
