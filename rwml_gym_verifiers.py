"""The name by which verifiers and prime-rl find our environments: they import a plugin by a name without dots."""

from rwml_gym.agents.integrations.verifiers_env import ChatHarness, TextEnvironment, TextTasks, load_environment

__all__ = ["ChatHarness", "TextEnvironment", "TextTasks", "load_environment"]
