"""Evaluate world models by themselves: one step, several steps ahead, and as an environment.

rwml-gym evaluate-world-model --transitions recorded
rwml-gym evaluate-world-model --transitions recorded --adapter runs/demo/adapters/rwml --models base most-frequent
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rwml_gym.agents.config.evaluate_world_model import EvaluateWorldModelConfig
from rwml_gym.agents.jobs.world_models.ahead import Predict, choose_starts, predict_ahead
from rwml_gym.agents.jobs.world_models.imagined import collect_starts, play_inside, recognition
from rwml_gym.agents.players.base import Agent, MakeEnv
from rwml_gym.agents.players.baselines import EpisodeAgent, ExpertAgent, RandomAgent, TaskWordsAgent
from rwml_gym.agents.players.rollout import Episode, collect
from rwml_gym.agents.reports.evaluate import evaluate_predictions
from rwml_gym.agents.reports.world_model_evaluation import Recognition, WorldModelEvaluation
from rwml_gym.agents.runs.worlds import Source, choose_games, games_of
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, TOOL_ROLE
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import EPISODE, InvalidDatasetError, TransitionDataset
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel, predict_checked, takes_tasks
from rwml_gym.world_models.env import Start, says, task_is_done
from rwml_gym.world_models.retrieval import RetrievalWorldModel

if TYPE_CHECKING:  # imports torch, which lookups do not need
    from rwml_gym.agents.language.world_model import WorldModelSettings

__all__ = ["as_trained", "evaluate_world_models", "make_gap"]

Say = Callable[[str], None]
_EXPERT_EPISODES = 1_000_000_000
_LIMITS = ("max_prompt_tokens", "max_new_tokens")  # which may be other ones; the rest may not
_PROMPTS = ("prompt_style", "history", "max_state_characters", *_LIMITS)
_LOOKUP = "most-frequent"  # the table's rows are told apart by what it answers, so it is always evaluated


def evaluate_world_models(
    config: EvaluateWorldModelConfig, gap: GapReward | None = None, say: Say = lambda text: None
) -> WorldModelEvaluation:
    """Evaluate world models as configured.

    Args:
        config: Which models, on what.
        gap: The reward, see `make_gap`; made here if absent.
        say: Told what is done.

    Raises:
        InvalidConfigError: If a value is not allowed, or does not fit the environment.
        InvalidDatasetError: If there are no transitions of two games in `config.transitions`.
        GameNotFoundError: If the environment does not know a recorded game.
        ModelNotFoundError: If a language model or an adapter cannot be loaded.
    """
    config = as_trained(config, say)
    source = Source(config)
    gap = gap or make_gap(config, source.world.roles)
    transitions = _transitions(config, source, say)
    learn, held = transitions.split_by_game(config.held_out, config.seed)
    make_env = source.make(config.imagined_steps, source.world.split)
    starts, left_out = _starts(config, source, make_env, held, transitions)
    models = _models(config, source, learn, gap)  # before anything is predicted, because a wrong name costs nothing
    player = _player(config, source) if starts else None

    count = min(config.limit, len(held))
    chosen = TransitionDataset(held[i] for i in sorted(random.Random(config.seed).sample(range(len(held)), count)))
    places = choose_starts(held, config.steps_ahead, config.starts, config.seed) if config.steps_ahead else []
    if config.steps_ahead and not places:
        left_out.append(
            f"No steps ahead: no held-out episode has {config.steps_ahead} steps one after the other. Ask for fewer "
            "(--steps-ahead)."
        )
    success = task_is_done if config.success_text is None else says(config.success_text)
    one_step, ahead, inside = {}, {}, {}
    real: list[Episode] | None = None
    for name, (model, predict) in models.items():
        say(f"{name}: {len(chosen)} transitions one step ahead")
        one_step[name] = evaluate_predictions(chosen, predict(chosen), gap)
        if places:
            say(f"{name}: {len(places)} places {config.steps_ahead} steps ahead")
            ahead[name] = predict_ahead(predict, places, gap, config.history)
        if player is not None:
            say(f"{name}: {len(starts)} games inside it")
            found, real = play_inside(
                model, starts, make_env, player, config.imagined_steps, success, config.history, real
            )
            inside[name] = found
    known: Recognition | None = None
    if inside:
        known = recognition([*transitions, *_expert_episodes(config, source, starts)], success)
    return WorldModelEvaluation(
        one_step,
        ahead,
        inside,
        known,
        len(learn),
        ", ".join(sorted({t.data_version for t in held} - {""})),
        f"The player {config.player!r}",
        " ".join(left_out),
    )


def make_gap(config: EvaluateWorldModelConfig, roles: bool) -> GapReward:
    """Make the reward of the predictions; results of tools are compared by ROUGE where all else is by the cosine.

    An adapter that was trained on the schemas of results is compared in this view, and so are the other models.

    Raises:
        DependencyNotInstalled: If the encoder or ROUGE needs a library that is not installed.
        EncoderNotFoundError: If the encoder cannot be loaded.
    """
    measures: dict[str, dict[str, Any]] = {TOOL_ROLE: {"gap": "rouge"}} if roles and config.gap == "cosine" else {}
    settings = _settings(config)
    if roles and settings is not None and settings.json_schema:
        measures = {TOOL_ROLE: {"gap": config.gap, **measures.get(TOOL_ROLE, {}), "view": "schema"}}
    encodes = DISTANCES[config.gap].encodes or "retrieval" in config.models
    encoder = config.encoder if encodes else "hashing"
    return GapReward(encoder, config.threshold, measures=measures, gap=config.gap)


def _settings(config: EvaluateWorldModelConfig) -> WorldModelSettings | None:
    """Return what the prompts of the adapter's training held; `None` without an adapter, or if it does not say."""
    if config.adapter is None:
        return None
    from rwml_gym.agents.language.world_model import WORLD_MODEL_FILE, world_model_folder, world_model_settings

    named = (world_model_folder(config.adapter) / WORLD_MODEL_FILE).is_file()
    return world_model_settings(config.adapter) if named else None


def as_trained(config: EvaluateWorldModelConfig, say: Say = lambda text: None) -> EvaluateWorldModelConfig:
    """Return the configuration with the prompts that the adapter was trained on, for the base model, too.

    Raises:
        InvalidConfigError: An option says otherwise, other than a limit of tokens.
    """
    settings = _settings(config)
    if settings is None:
        return config
    trained = {name: getattr(settings, name) for name in _PROMPTS}
    default = EvaluateWorldModelConfig()
    for name, value in list(trained.items()):
        given = getattr(config, name)
        if name in _LIMITS and given != getattr(default, name):
            del trained[name]
        elif given not in (value, getattr(default, name)):
            raise InvalidConfigError(
                f"Expected {name} {value!r}, with which the adapter {config.adapter!r} was trained, actual: {given!r}. "
                f"Leave out --{name.replace('_', '-')}."
            )
    say(f"Prompts as in the adapter's training: {', '.join(f'{name} {value}' for name, value in trained.items())}")
    return replace(config, **trained)


def _transitions(config: EvaluateWorldModelConfig, source: Source, say: Say) -> TransitionDataset:
    if config.transitions is not None:
        found = source.load(config.transitions)
        if {"base", "adapter"} & {*config.model_names}:  # lookups need no window
            found = found.with_window(config.history)
        if len(found.games) < 2:
            raise InvalidDatasetError(
                f"Expected transitions of at least 2 games in {str(config.transitions)!r}, actual: {len(found.games)}. "
                "Record more (rwml-gym record --games 40): some are held out."
            )
        return found
    source.player(config.seed)  # raises where nobody can play
    make_env = source.make(config.record_steps, source.world.split, **source.known_arguments)
    with make_env() as env:
        games = choose_games(env, config.games, config.seed)
    say(f"A random player plays {len(games)} games")
    return collect(make_env, EpisodeAgent(source.player, config.seed), games, config.history, slots=1)


def _starts(
    config: EvaluateWorldModelConfig,
    source: Source,
    make_env: MakeEnv,
    held: TransitionDataset,
    transitions: TransitionDataset,
) -> tuple[list[Start], list[str]]:
    """Return the games to play inside the models, and why there are none."""
    if not config.imagined_games:
        return [], []
    if source.world.prompt_world == "service":
        return [], ["Nothing was played inside the models: no text of a service says whether its task is solved."]
    with make_env() as env:
        named = games_of(env) is not None
    games = [game for game in held.games if not game.startswith(EPISODE)][: config.imagined_games]
    if not named or not games:
        return [], ["Nothing was played inside the models: the environment does not name its games."]
    try:
        return collect_starts(make_env, games, transitions), []
    except GameNotFoundError as error:
        raise GameNotFoundError(
            f"{error} Choose the environment of the transitions (--env, --split), or leave this part out "
            "(--imagined-games 0)."
        ) from error


def _expert_episodes(config: EvaluateWorldModelConfig, source: Source, starts: Sequence[Start]) -> TransitionDataset:
    """Play the games with the environment's expert, who wins them; a random player's episodes are hardly ever won."""
    if not source.world.expert:
        return TransitionDataset(())
    make_env = source.make(None, source.world.split, **source.expert_arguments)
    # Numbered apart from the recorded episodes of the same games.
    return collect(make_env, ExpertAgent(), [s.game for s in starts], config.history, slots=1, first=_EXPERT_EPISODES)


def _models(
    config: EvaluateWorldModelConfig, source: Source, learn: TransitionDataset, gap: GapReward
) -> dict[str, tuple[WorldModel, Predict]]:
    """Make the models by the names in the tables."""
    made: dict[str, tuple[WorldModel, Predict]] = {}
    for name in dict.fromkeys((*config.model_names, _LOOKUP)):
        model: WorldModel
        if name in ("base", "adapter"):
            model, predict = _language_model(config, source, config.adapter if name == "adapter" else None)
        else:
            if name == "nothing-changes":
                model = NothingChanges()
            elif name == "retrieval":
                model = RetrievalWorldModel(learn, gap.encoder)
            else:
                model = MostFrequentOutcome(learn)
            predict = _predict_with(model)
        made[name.replace("-", " ")] = model, predict
    return made


def _predict_with(model: WorldModel) -> Predict:
    def predict(transitions: Sequence[Any]) -> list[str]:
        tasks = [t.task for t in transitions] if takes_tasks(model) else None
        histories, actions = [t.history for t in transitions], [t.action for t in transitions]
        return [text or "" for text in predict_checked(model, histories, actions, tasks, text=True)]

    return predict


def _language_model(
    config: EvaluateWorldModelConfig, source: Source, adapter: str | None
) -> tuple[WorldModel, Predict]:
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.language.world_model import LanguageWorldModel, world_model_folder

    model, tokenizer = load_model(config.model, config.dtype)
    settings = _settings(config)
    world, more = source.world.prompt_world, {}
    if settings is not None:  # an adapter of another world may have learnt JSON, of which a game has none
        more = {"empty_thought": settings.empty_thought, "json_schema": settings.json_schema and world == "service"}
    prompts = config.make_prompts(tokenizer, world, **more)
    adapted = model if adapter is None else load_adapter(model, world_model_folder(adapter))
    world_model = LanguageWorldModel(adapted, tokenizer, prompts, config.max_new_tokens)

    def predict(transitions: Sequence[Any]) -> list[str]:
        # With what the simulated user knows, which `WorldModel.predict` cannot pass on.
        attempts = world_model.attempts(transitions, 1, temperature=0.0)
        return [prompts.read_prediction(completion.text) for (completion,) in attempts]

    return world_model, predict


def _player(config: EvaluateWorldModelConfig, source: Source) -> Callable[[], Agent]:
    """Return what makes the player anew; a model is loaded once."""
    if config.player != "model":
        kind = RandomAgent if config.player == "random" else TaskWordsAgent
        if source.world.player is not RandomAgent:
            raise InvalidConfigError(
                f"Expected admissible actions for the player {config.player!r}, actual: none in "
                f"{source.world.title}. Use --player model, or leave this part out (--imagined-games 0)."
            )
        return lambda: kind(config.seed)
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.players.language_model import LanguageModelAgent

    model, tokenizer = load_model(config.model, config.dtype)
    adapted = model if config.player_adapter is None else load_adapter(model, config.player_adapter)
    prompts = config.make_prompts(tokenizer, source.world.prompt_world)
    return lambda: LanguageModelAgent(adapted, tokenizer, prompts, temperature=0.0, seed=config.seed)
