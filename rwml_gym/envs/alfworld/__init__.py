"""ALFWorld as a text Gymnasium environment, with official and generated games."""

from rwml_gym.envs.alfworld.engine.game import TASK_TYPES, Game
from rwml_gym.envs.alfworld.env import ALFWorldEnv
from rwml_gym.envs.alfworld.games.sources import GeneratedGames, OfficialGames, make_games

__all__ = ["TASK_TYPES", "ALFWorldEnv", "Game", "GeneratedGames", "OfficialGames", "make_games"]
