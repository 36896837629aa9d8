"""Environments for TRL's `environment_factory`: the model acts by calling a tool, in its own chat template.

Beside `trl.EnvironmentRollout` (`rollout_func`), which builds the prompts of this package, here TRL builds them: it
renders the tool `act`, parses the model's calls, and puts the answers into tool messages. The model's chat template
must have tools, as Qwen3's does::

    make_env = partial(gymnasium.make, "rwml_gym/ALFWorld-v0")
    GRPOTrainer(
        model,
        environment_factory=partial(TextEnvironment, make_env),
        train_dataset=make_environment_dataset(games),
    )

The reward is the environment's own (`get_reward`). With `PredictingEnvironment` and `WorldModelRewardWrapper`, the
model passes the answer that it expects with each action, and `predictions_reward` rewards it. This module does not
import TRL; it was tested with 1.16, where the interface is experimental.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rwml_gym.agents.integrations.dialogue import Dialogue
from rwml_gym.agents.language.instructions import describe_rules
from rwml_gym.errors import InvalidConfigError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["PredictingEnvironment", "TextEnvironment", "make_environment_dataset", "predictions_reward"]

_PROMPT = (
    "You act in a text environment to solve a task. Call the tool `act` once for each action, read what it returns, "
    "and go on until the episode is over."
)
_OVER = "The episode is over."


class TextEnvironment:
    """A text environment as TRL's trainer takes it: `reset`, `get_reward`, and the tool `act`.

    TRL offers each other public method to the model as a tool, with its docstring, so there is none.

    Args:
        make_env: Makes the environment with its step budget.
        show_actions: Whether observations of games end with the admissible actions.
    """

    def __init__(self, make_env: Callable[[], gym.Env[str, str]], show_actions: bool = True) -> None:
        self._dialogue = Dialogue(make_env(), show_actions)

    def reset(self, game: str | None = None, seed: int | None = None, **_: Any) -> str:
        """Start the row's game, or the episode of its seed; return what TRL appends to the prompt.

        Raises:
            InvalidConfigError: If the row has neither or both.
            GameNotFoundError: If no game has this name.
        """
        if (game is None) == (seed is None):
            raise InvalidConfigError(
                f"Expected a `game` or a `seed` in a row, actual: {game!r} and {seed!r}. Make the rows with "
                "make_environment_dataset."
            )
        opening = self._dialogue.start(str(game) if seed is None else int(seed))
        rules = describe_rules(self._dialogue.info)
        return "\n\n".join(filter(None, (" ", rules, opening.user)))

    def act(self, action: str) -> str:
        """Take one action in the environment.

        Args:
            action: A command such as "go to desk 1"; in customer service, a message to the user or a call such as
                get_order(order_id="1").

        Returns:
            What the environment answers.
        """
        return self._act(action, "")

    def get_reward(self) -> float:
        """Return the task reward of the episode."""
        return self._dialogue.reward

    def _act(self, action: str, prediction: str) -> str:
        if self._dialogue.over:
            return _OVER
        answer = self._dialogue.say(str(action), str(prediction))
        return f"{answer}\n{_OVER}" if self._dialogue.over else answer


class PredictingEnvironment(TextEnvironment):
    """A `TextEnvironment` whose tool takes the answer that the model expects, too.

    Wrap the environment in `WorldModelRewardWrapper`; it never sees the prediction. Any `mode` will do, because the
    task reward and the predictions' are separate here.
    """

    def act(self, action: str, prediction: str) -> str:  # type: ignore[override]  # TRL reads the signature
        """Take one action in the environment, and say what it will answer.

        Args:
            action: A command such as "go to desk 1"; in customer service, a message to the user or a call such as
                get_order(order_id="1").
            prediction: What the environment will answer to this action.

        Returns:
            What the environment answers.
        """
        return self._act(action, prediction)


def make_environment_dataset(games: Sequence[str | int], prompt: str = _PROMPT) -> Dataset:
    """Return the games as TRL's training data for `environment_factory`: `prompt`, and `game` or `seed`.

    Args:
        games: At least one name of a game, or seed; not both kinds.
        prompt: What the first message says before the observation.

    Raises:
        InvalidConfigError: If there are no games, or both names and seeds.
    """
    from datasets import Dataset

    kinds = {isinstance(game, str) for game in games}
    if len(kinds) != 1:
        raise InvalidConfigError(
            f"Expected names of games or seeds, at least one and of one kind, actual: {list(games)[:5]!r}. Make a "
            "dataset of each kind."
        )
    column = "game" if kinds == {True} else "seed"
    return Dataset.from_list([{"prompt": [{"role": "user", "content": prompt}], column: game} for game in games])


def predictions_reward(environments: Sequence[TextEnvironment] | None = None, **_: Any) -> list[float | None]:
    """Return the mean reward of each episode's predictions, for `reward_funcs`; `None` for one without any action.

    Args:
        environments: What TRL passes: the environments of the batch after their episodes.

    Raises:
        InvalidConfigError: If there are no environments, or they are not wrapped.
    """
    if not environments:
        raise InvalidConfigError(
            "Expected the environments of `environment_factory` for this reward, actual: none. Pass "
            "environment_factory=partial(PredictingEnvironment, make_env) to GRPOTrainer."
        )
    dialogues = [environment._dialogue for environment in environments]
    if any(dialogue.steps and not dialogue.gaps for dialogue in dialogues):
        raise InvalidConfigError(
            'Expected info["world_model"] from the environment, actual: none. Wrap it in make_env: '
            'WorldModelRewardWrapper(env, mode="report").'
        )
    return [sum(d.gaps) / len(d.gaps) if d.gaps else None for d in dialogues]
