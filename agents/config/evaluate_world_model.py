"""The configuration of the evaluation of world models: which models, on which transitions, and how far ahead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rwml_gym.agents.config.base import EnvConfig, ModelConfig, nearest
from rwml_gym.agents.ranges import above, at_least
from rwml_gym.encoders.cached import DEFAULT_ENCODER
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import GapName

__all__ = ["EvaluateWorldModelConfig", "PlayerName"]

ModelName = Literal["nothing-changes", "most-frequent", "retrieval", "base", "adapter"]
PlayerName = Literal["random", "task-words", "model"]


@dataclass(frozen=True)
class EvaluateWorldModelConfig(ModelConfig, EnvConfig):
    """Evaluate world models: one step, several steps ahead on their own predictions, and as an environment.

    The games of the transitions are divided: models that look up what they have seen learn from some, and all models
    are evaluated on the others.

    Attributes:
        transitions: Folder of recorded transitions (`rwml-gym record`), of the same environment and split; a random
            player plays `games` games now if absent.
        games: Number of games to play where there are no `transitions`.
        record_steps: Step budget of these games.
        models: Which models: `nothing-changes`, `most-frequent` and `retrieval`; `base`, the language model as it is;
            `adapter`, the language model with --adapter, which is added where an adapter is given.
        adapter: Folder of a LoRA adapter, or the name of one that comes with the package. The prompts are those of its
            training where it says what they hold (`world_model.json`), for `base`, too.
        held_out: Share of the games that the models are evaluated on; the others are learnt from.
        limit: Maximal number of transitions that are predicted one step ahead.
        steps_ahead: How many steps are predicted on the model's own predictions; 0 leaves this part out.
        starts: Maximal number of places in the recorded episodes from which steps ahead are predicted.
        imagined_games: Number of games that are played inside each model; 0 leaves this part out.
        imagined_steps: Step budget of a game, inside the models and outside.
        player: Who plays inside the models: `random` or `task-words`, among the actions that are known from the
            recorded transitions, or `model`, the language model with --player-adapter.
        player_adapter: Folder of the player's LoRA adapter, such as a policy's.
        success_text: A text in a predicted observation that means success, for models of games that say so. If absent,
            success is recognised from the task's words, see `WorldModelEnv`.
        gap: How predictions are compared: `cosine`, `entities`, `rouge` or `exact`; results of tools are compared by
            ROUGE where it is the cosine.
        threshold: τ_d; the gap's default if absent.
        encoder: Encoder of the cosine and of `retrieval`: a name or a folder.
        max_new_tokens: Token limit of a prediction.
        seed: Seed of every choice.
        out: Folder for report.txt and results.json; nothing is written if absent.
    """

    transitions: Path | None = None
    games: int = 20
    record_steps: int = 30
    models: tuple[ModelName, ...] = ("nothing-changes", "most-frequent", "retrieval")
    adapter: str | None = None
    held_out: float = 0.5
    limit: int = 200
    steps_ahead: int = 5
    starts: int = 50
    imagined_games: int = 10
    imagined_steps: int = 20
    player: PlayerName = "task-words"
    player_adapter: str | None = None
    success_text: str | None = None
    gap: GapName = "cosine"
    threshold: float | None = None
    encoder: str = DEFAULT_ENCODER
    max_new_tokens: int = 96
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "games")
        at_least(self, 1, "limit", "starts", "imagined_steps", "record_steps", "max_new_tokens", "history")
        at_least(self, 0, "steps_ahead", "imagined_games", "seed")
        above(self, 0, "held_out")
        if self.held_out >= 1:
            raise InvalidConfigError(f"Expected held_out below 1, actual: {self.held_out}. Some games are learnt from.")
        if not self.models:
            raise InvalidConfigError(f"Expected at least one model of {list(get_args(ModelName))}, actual: none.")
        for name in self.models:
            if name not in get_args(ModelName):
                known = get_args(ModelName)
                raise InvalidConfigError(
                    f"Expected models among {list(known)}, actual: {name!r}.{nearest(name, known)}"
                )
        if "adapter" in self.models and self.adapter is None:
            raise InvalidConfigError("Expected --adapter FOLDER for the model 'adapter', actual: none. Give it.")
        if self.player_adapter is not None and self.player != "model":
            raise InvalidConfigError(
                f"Expected the player 'model' for a player_adapter, actual: {self.player!r}. Use --player model, or "
                "leave out --player-adapter."
            )

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models, each once, with `adapter` where an adapter is given."""
        return tuple(dict.fromkeys((*self.models, *(["adapter"] if self.adapter is not None else []))))
