"""τ²-bench as a text Gymnasium environment: tau2's tasks and scores, without its threads, leaks and waiting."""

from rwml_gym.envs.tau2.domains import DOMAINS
from rwml_gym.envs.tau2.env import Tau2Env

__all__ = ["DOMAINS", "Tau2Env"]
