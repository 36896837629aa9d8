"""The commands that come before training: `rwml-gym record`, `calibrate` and `audit`."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rwml_gym.agents.config.base import EnvConfig, ModelConfig
from rwml_gym.agents.language.prompts import world_of
from rwml_gym.agents.ranges import at_least, share, used_only_with, within
from rwml_gym.checks import require
from rwml_gym.diagnostics.audit import GapChoice
from rwml_gym.diagnostics.audit import audit as run_audit
from rwml_gym.diagnostics.audit_report import audit_table, write_audit
from rwml_gym.diagnostics.calibration import NoPairsError
from rwml_gym.diagnostics.calibration_report import Calibrations, calibrate_each, calibrations_table, write_calibrations
from rwml_gym.diagnostics.thresholds import Choice
from rwml_gym.encoders.cached import DEFAULT_ENCODER, CachedEncoder, make_encoder
from rwml_gym.errors import ConfigMismatchError, InvalidConfigError
from rwml_gym.hub import check_repository
from rwml_gym.reward.distances import DISTANCES, GapName
from rwml_gym.reward.gap import Measure, RewardShape
from rwml_gym.reward.views import ViewName, check_view
from rwml_gym.storage.journal import Journal
from rwml_gym.storage.lock import WriteLock
from rwml_gym.terminal import say
from rwml_gym.text import shown
from rwml_gym.transitions import (
    InvalidDatasetError,
    Transition,
    TransitionDataset,
    action_type,
    check_replaceable,
    count_games,
)

__all__ = ["AuditCommand", "CalibrateCommand", "RecordCommand", "audit", "calibrate", "record"]

Data = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]


# Options of `record` that change nothing in the data.
_NOT_PLAYED = ("out", "overwrite", "push_to_hub")


@dataclass(frozen=True)
class RecordCommand(EnvConfig):
    """Record transitions of a random player, which `calibrate` and `audit` read.

    Each game is kept as soon as it has ended; an interrupted recording goes on when the command is repeated.

    Random commands where the environment lists the admissible ones; random calls with values from the conversation on
    τ²-bench.

    Attributes:
        out: Folder to write to.
        games: Number of games; each is played once.
        max_steps: Step budget of an episode, 30 as in the paper.
        history: Turns kept with each transition.
        seed: Seed of the choice of games and actions.
        overwrite: Replace earlier transitions.
        push_to_hub: Data set to upload them to, with a card, such as `name/repository` (private); none if absent. The
            folder `OUT.shared` holds what is uploaded.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = tyro.MISSING
    games: int = 40
    max_steps: int = 30
    history: int = 4
    seed: int = 0
    overwrite: bool = False
    push_to_hub: str | None = None


def record(words: Sequence[str]) -> int:
    """Run `rwml-gym record` with the words after it."""
    command = tyro.cli(RecordCommand, args=words, prog="rwml-gym record")
    if command.push_to_hub is not None:
        check_repository(command.push_to_hub)
    at_least(command, 1, "games", "max_steps", "history")
    at_least(command, 0, "seed")
    if command.out.name in ("", ".."):
        raise InvalidConfigError(f"Expected the name of a folder, actual: {str(command.out)!r}. Choose another --out.")
    out = Path(os.path.realpath(command.out))
    beside = f".{out.name}.rwml-record"  # no name that somebody's own file has
    with WriteLock(out.with_name(f"{beside}.lock"), command.out, "choose another --out"):
        return _record(command, out.with_name(f"{beside}.journal"))


def _record(command: RecordCommand, path: Path) -> int:
    """Play what the journal at this path does not hold yet, and save the transitions."""
    check_replaceable(Path(os.path.realpath(command.out)))
    header = {name: str(value) for name, value in vars(command).items() if name not in _NOT_PLAYED}
    try:
        journal = Journal(path, header)
    except ConfigMismatchError:
        if not command.overwrite:
            raise
        path.unlink()
        journal = Journal(path, header)
    if command.out.exists() and not command.overwrite and not journal.values:
        raise InvalidConfigError(
            f"Expected a new folder, actual: {str(command.out)!r} exists. Choose another --out, or add --overwrite."
        )
    from rwml_gym.agents.players.baselines import EpisodeAgent
    from rwml_gym.agents.players.rollout import collect
    from rwml_gym.agents.runs.worlds import Source, choose_games

    source = Source(command)
    source.player(command.seed)  # raises where nobody can play
    make_env = source.make(command.max_steps, source.world.split, **source.known_arguments)
    with make_env() as env:
        games = choose_games(env, command.games, command.seed)
    done = len(journal.values)
    try:
        if done < len(games):
            agent = EpisodeAgent(source.player, command.seed, done)
            keep = lambda episode: journal.append([asdict(transition) for transition in episode])  # noqa: E731
            collect(make_env, agent, games[done:], command.history, slots=1, first=done, keep=keep)
    finally:
        journal = Journal(path, header)  # an interrupt may have come between the file and what is in memory
        found = TransitionDataset(Transition.from_dict(row) for episode in journal.values for row in episode)
        if found:
            found.save(command.out)
            say(f"{len(journal.values)} of {len(games)} games are in {command.out}.")
    journal.remove()
    types = Counter(action_type(t.action) for t in found)
    say(f"{len(found)} transitions of {count_games(found)} in {command.out}")
    say(f"{len(types)} types of action: {', '.join(f'{shown(name)} {n}' for name, n in types.most_common(12))}")
    if command.push_to_hub is not None:
        say(f"Shared as {_share(command, command.push_to_hub, source.world.title, found)}.")
    return 0


def _share(command: RecordCommand, repo_id: str, title: str, found: TransitionDataset) -> str:
    from rwml_gym.agents.reports.dataset_card import push_transitions, write_shared

    played = {name: value for name, value in vars(command).items() if name not in _NOT_PLAYED}
    defaults = {field.name: field.default for field in fields(RecordCommand)}
    changed = {name: value for name, value in played.items() if value != defaults[name]}
    words = " ".join(f"--{name.replace('_', '-')} {_as_word(value)}" for name, value in changed.items())
    made = {"player": "random", **{name: _as_word(value) for name, value in played.items() if value is not None}}
    again = f"rwml-gym record {words} --out {command.out.name}"
    folder = command.out.with_name(f"{command.out.name}.shared")
    write_shared(found, folder, f"Transitions of {title}", repo_id, again, made)
    return push_transitions(folder, repo_id)


def _as_word(value: Any) -> str:
    """Return a value as on the command line; of a folder its last name alone, because the rest of it is private."""
    if isinstance(value, tuple | list):
        return " ".join(map(_as_word, value))
    text = str(value)
    return shlex.quote(Path(text).name if os.path.isabs(text) else text)


@dataclass(frozen=True)
class CalibrateCommand:
    """Find the threshold that separates the same state from another, with its precision and recall.

    One row for all transitions, each message role and each type of action. The threshold is chosen on half of the
    games and measured on the other half.
    """

    data: Data
    """Folder of recorded transitions (`rwml-gym record`, `TransitionDataset.save`)."""
    encoder: tuple[str, ...] = (DEFAULT_ENCODER,)
    """Encoders of the cosine: names or folders."""
    gap: tuple[GapName, ...] = ("cosine", "entities", "rouge")
    """Which distances: cosine and entities (cosine with the same names and numbers), for each encoder; rouge; exact."""
    view: ViewName = "raw"
    """What of the results of tools is compared: their text (raw), or their schema."""
    choose: tuple[Choice, ...] = ("precision",)
    """How thresholds are chosen: by precision; as in the paper, from the attempts of retrieval models; or by quantile,
    which carries the first encoder's --threshold to the others. Each is printed with what it lets pass."""
    threshold: float | None = None
    """τ_d to measure in place of choosing one; with --choose quantile, that of the first --encoder."""
    easy_rate: float = 0.9
    """With --choose paper, the pass rate from which a triplet is easy; 0 asks for one right attempt."""
    by: tuple[Literal["role", "action"], ...] = ("role", "action")
    """Separate calibrations: per message role, per action type."""
    precision: float = 0.9
    """Target precision: the share of right predictions among the rewarded."""
    pairs: int = 50
    """Maximal pairs per perturbation in each half of the games."""
    seed: int = 0
    """Seed of the split and the pairs."""
    out: Folder = None
    """Where to write calibrations.txt, .json and .png."""


def calibrate(words: Sequence[str]) -> int:
    """Run `rwml-gym calibrate` with the words after it."""
    command = tyro.cli(CalibrateCommand, args=words, prog="rwml-gym calibrate")
    at_least(command, 1, "pairs")
    at_least(command, 0, "seed")
    if not 0 < command.precision <= 1:
        raise InvalidConfigError(f"Expected --precision above 0 and at most 1, actual: {command.precision}.")
    share(command, "easy_rate")
    if not command.gap or not command.encoder or not command.choose:
        raise InvalidConfigError("Expected at least one --gap, --encoder and --choose, actual: none.")
    for gap in command.gap:
        if command.threshold is not None:
            Measure(gap, command.threshold)  # rejects a value out of the gap's range
    if "quantile" in command.choose and (command.threshold is None or len(set(command.encoder)) < 2):
        raise InvalidConfigError(
            "Expected a --threshold and at least two encoders for --choose quantile, actual: "
            f"{command.threshold} and {list(command.encoder)}. Give the threshold of the first --encoder."
        )
    if command.threshold is not None and "quantile" not in command.choose and command.choose != ("precision",):
        raise InvalidConfigError(
            "Expected --threshold alone or with --choose quantile, actual: with "
            f"{', '.join(command.choose)}. Leave one of the two out."
        )
    transitions = _load(command.data)
    check_view(transitions, command.view)  # raises where there is nothing to view
    _check_out(command.out)
    # Whatever a gap needs is loaded before the first one works: a wrong name costs nothing.
    pairs: list[tuple[GapName, CachedEncoder]] = []
    for gap in dict.fromkeys(command.gap):
        DISTANCES[gap].require()
        names = dict.fromkeys(command.encoder) if DISTANCES[gap].encodes else ["hashing"]  # which is not used
        pairs += [(gap, make_encoder(name)) for name in names]
    settings = (command.by, command.precision, command.seed, command.pairs)
    source = make_encoder(command.encoder[0]) if any(DISTANCES[gap].encodes for gap in command.gap) else None
    found: list[Calibrations] = []
    for gap, encoder in pairs:
        for choose in dict.fromkeys(command.choose):
            if choose == "quantile" and (encoder is source or not DISTANCES[gap].encodes):
                continue  # the threshold is its own
            options: dict[str, Any] = {
                "view": command.view,
                "choose": choose,
                "source": source,
                "easy_rate": command.easy_rate,
            }
            threshold = command.threshold if choose == "quantile" or command.choose == ("precision",) else None
            found.append(calibrate_each(transitions, encoder, gap, *settings, threshold=threshold, **options))
    say(calibrations_table(found))
    if command.out is not None:
        _say_written(write_calibrations(command.out, found))
    return 0


_OF_MODEL = (
    *(field.name for field in fields(ModelConfig) if field.name != "model"),
    *("adapter", "samples", "prompts", "max_new_tokens"),
)


@dataclass(frozen=True)
class AuditCommand(ModelConfig):
    """Find out before training whether a reward can teach anything: a verdict in words, a table, a plot."""

    data: Data = tyro.MISSING
    """Folder of recorded transitions (`rwml-gym record`, `TransitionDataset.save`)."""
    encoder: str = DEFAULT_ENCODER
    """Encoder of the cosine: a name or a folder."""
    threshold: float | Literal["auto"] = "auto"
    """τ_d of every message role; auto calibrates each."""
    gap: GapChoice = "auto"
    """A distance (cosine, entities, rouge, exact); auto takes ROUGE for tool results and the cosine for all else."""
    view: ViewName = "raw"
    """What of the results of tools is predicted and compared: their text (raw), or their schema."""
    reward: RewardShape = "binary"
    """binary; continuous: 1 - d; or stepped: 1 - d in steps of 0.2."""
    precision: float = 0.9
    """Target precision of a calibrated threshold."""
    pairs: int = 50
    """Maximal pairs per perturbation in each half of the games."""
    limit: int = 200
    """Maximal number of held-out transitions that baselines are scored on."""
    model: str | None = None
    """Language model whose predictions are sampled as in training: a name, folder or hub id."""
    adapter: str | None = None
    """Folder of a LoRA adapter for it."""
    samples: int = 8
    """Samples per prompt; at least the group size makes the estimate unbiased."""
    group_size: int = 8
    """Completions per group, G."""
    prompts: int = 64
    """Number of held-out transitions that are sampled."""
    max_new_tokens: int = 96
    """Token limit of a prediction."""
    seed: int = 0
    """Seed of every choice and sample."""
    out: Folder = None
    """Where to write audit.txt, .json and .png."""
    strict: bool = False
    """Exit with status 1 if anything speaks against the reward, for scripts."""


def audit(words: Sequence[str]) -> int:
    """Run `rwml-gym audit` with the words after it."""
    command = tyro.cli(AuditCommand, args=words, prog="rwml-gym audit")
    if command.model is not None and command.samples == 1:
        raise InvalidConfigError(f"Expected --samples of at least 2, better {command.group_size}, actual: 1.")
    at_least(command, 1, "pairs", "limit", "samples", "prompts", "history", "max_new_tokens")
    at_least(command, 0, "seed")
    within(command, 0, 1, "precision")
    if command.model is None:
        used_only_with("--model", command, _OF_MODEL, "name the model whose predictions are sampled")
    threshold = None if command.threshold == "auto" else command.threshold
    transitions = _load(command.data)
    check_view(transitions, command.view)  # raises where there is nothing to view, before a model is loaded
    _check_out(command.out)
    encoder = make_encoder(command.encoder)
    result = run_audit(
        transitions,
        encoder,
        threshold,
        gap=command.gap,
        view=command.view,
        reward=command.reward,
        precision=command.precision,
        sample=_sampler(command, transitions) if command.model is not None else None,
        prompts=command.prompts,
        group_size=command.group_size,
        pairs_per_perturbation=command.pairs,
        limit=command.limit,
        seed=command.seed,
    )
    say(audit_table(result))
    if command.out is not None:
        _say_written(write_audit(command.out, result))
    return int(command.strict and bool(result.findings))


def _sampler(
    command: AuditCommand, transitions: Sequence[Transition]
) -> Callable[[Sequence[Transition]], list[list[str]]]:
    """Load the model and return its sampler, which works as in stage 1, at temperature 1."""
    if command.group_size < 2:
        raise InvalidConfigError(f"Expected --group-size of at least 2, actual: {command.group_size}.")
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.language.world_model import LanguageWorldModel

    assert command.model is not None
    model, tokenizer = load_model(command.model, command.dtype)
    prompts = command.make_prompts(tokenizer, world_of(transitions))
    for transition in transitions:
        prompts.ask(replace(transition, history=()))  # raises where it cannot be asked for
    adapted = model if command.adapter is None else load_adapter(model, command.adapter)
    world_model = LanguageWorldModel(adapted, tokenizer, prompts, command.max_new_tokens)

    def sample(chosen: Sequence[Transition]) -> list[list[str]]:
        attempts = world_model.attempts(chosen, command.samples, seed=command.seed)
        return [[prompts.read_prediction(completion.text) for completion in row] for row in attempts]

    return sample


def _load(path: Path) -> TransitionDataset:
    transitions = TransitionDataset.load(path)
    if not transitions:
        raise InvalidDatasetError(
            f"Expected transitions in {str(path)!r}, actual: none. Record games (rwml-gym record)."
        )
    if len(transitions.games) < 2:
        raise NoPairsError(
            f"Expected transitions of at least 2 games in {str(path)!r}, actual: {len(transitions.games)}. Record more "
            "(rwml-gym record --games 40): some are held out."
        )
    return transitions


def _check_out(folder: Path | None) -> None:
    if folder is None:
        return
    require("matplotlib", "matplotlib for --out", "report")
    if folder.exists() and not folder.is_dir():
        raise InvalidConfigError(f"Expected --out to be a folder, actual: the file {str(folder)!r}.")


def _say_written(paths: Sequence[Path]) -> None:
    say(f"\nWritten: {', '.join(map(str, paths))}")
