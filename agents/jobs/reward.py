"""The gap reward of a run: which distance measures which message role, and with which threshold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.language.judge import JUDGE_THRESHOLD, OWN, JudgedGap, JudgeReward, judge_of
from rwml_gym.agents.language.models import load_model, load_shape
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.diagnostics.calibration import Calibration, NoPairsError, calibrate, calibrate_by_role
from rwml_gym.diagnostics.calibration_pairs import pair_distances
from rwml_gym.diagnostics.thresholds import (
    EASY_SHARE,
    carried_threshold,
    paper_thresholds,
    share_easy,
    too_lax,
    training_threshold,
)
from rwml_gym.encoders.cached import Encoder, make_encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_json, write_json, write_text
from rwml_gym.hashes import damage, seal
from rwml_gym.reward.distances import DISTANCES, TOOL_ROLE
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.views import ViewName
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = [
    "calibrated_gap",
    "check_judge",
    "check_placebo",
    "check_reward",
    "make_gap",
    "paper_gaps",
    "pass_rates",
    "run_gap",
]

_WORDS = "user"


def run_gap(run: Run) -> GapReward:
    """Make the reward of a run before anything is calibrated; a judge other than the run's own model is loaded."""
    config, judge = run.config, None
    if config.judge == OWN:
        judge = JudgeReward(run.model, run.tokenizer)
    elif config.judge is not None:
        judge = JudgeReward(*load_model(config.judge, config.dtype, run.accelerator.device))
    return make_gap(config, run.world.roles, config.encoder, judge=judge)


def check_judge(source: Source, judge: str | None) -> None:
    """Raise `InvalidConfigError` if a judge is asked for and the world has results of tools, which it cannot judge."""
    if judge is not None and source.world.roles:
        raise InvalidConfigError(
            f"Expected a world without results of tools for a judge, actual: {source.world.title}. Remove --judge, or "
            "choose another --env."
        )


def check_placebo(source: Source, config: RWMLConfig) -> None:
    """Raise `InvalidConfigError` if thresholds are to be chosen by attempts at a placebo's answers."""
    if config.placebo == "none":
        return
    for role in (_WORDS, TOOL_ROLE) if source.world.roles else ("",):
        if _given(config, role) is None and _by_attempts(config, role):
            name = "tool-threshold" if role == TOOL_ROLE else "threshold"
            raise InvalidConfigError(
                f"Expected --{name} with the placebo {config.placebo!r} and threshold_by 'paper', actual: none. Give "
                "that of the run that it is compared with: attempts at a placebo's answers would choose another one."
            )


def check_reward(run: Run) -> None:
    """Check that the reward of a run can be made; a judge's weights are not loaded.

    Raises:
        DependencyNotInstalled: The encoder or ROUGE needs a library that is not installed.
        EncoderNotFoundError: The encoder cannot be loaded.
        ModelNotFoundError: The judge cannot be loaded.
    """
    config = run.config
    if config.judge is None:
        make_gap(config, run.world.roles, config.encoder)
    elif config.judge != OWN:
        load_shape(config.judge, config.dtype)


def make_gap(
    config: RWMLConfig,
    roles: bool,
    encoder: str | Encoder,
    thresholds: Mapping[str, float] | None = None,
    filtering: bool = False,
    judge: JudgeReward | None = None,
) -> GapReward:
    """Make the reward of a configuration.

    Args:
        config: The configuration; a threshold in it counts.
        roles: Whether the environment's answers have message roles.
        encoder: See `encoders.cached.make_encoder`.
        thresholds: Chosen thresholds by message role; where there is none, the distance's default counts.
        filtering: Whether it is the filter's, whose threshold for words may be another.
        judge: Who judges words, where the configuration has a judge.

    Raises:
        DependencyNotInstalled: The encoder or ROUGE needs a library that is not installed.
        EncoderNotFoundError: The encoder cannot be loaded.
    """
    found = dict(thresholds or {})
    if config.threshold is not None:
        found[_WORDS] = config.threshold
    if filtering and config.filter.threshold is not None:
        found[_WORDS] = config.filter.threshold
    if config.tool_threshold is not None:
        found[TOOL_ROLE] = config.tool_threshold
    view: ViewName = "without-nuisance" if config.nuisance else "raw"
    if config.judge is not None:
        assert judge is not None
        threshold = found.get(_WORDS, JUDGE_THRESHOLD)
        return JudgedGap(judge, config.judge, threshold, config.reward, view)
    threshold = found.get(_WORDS, found.get("", DISTANCES[config.gap].threshold))
    if not roles:
        return GapReward(encoder, threshold, config.reward, gap=config.gap, view=view)
    tool: dict[str, Any] = {"gap": config.tool_gap, "shape": config.tool_reward}
    if not config.nuisance:
        tool["view"] = config.target_view
    if TOOL_ROLE in found:
        tool["threshold"] = found[TOOL_ROLE]
    return GapReward(encoder, threshold, config.reward, measures={TOOL_ROLE: tool}, gap=config.gap, view=view)


def calibrated_gap(
    config: RWMLConfig, roles: bool, gap: GapReward, train: TransitionDataset, folder: Path
) -> tuple[GapReward, str]:
    """Choose the thresholds that are not configured, once: `calibration.json` by role, `calibration.txt` to read.

    With `threshold_by="paper"` those of binary rewards follow from attempts, see `paper_gaps`.

    Args:
        config: The configuration.
        roles: Whether the environment's answers have message roles.
        gap: The reward that is not calibrated, which holds the encoder.
        train: Training transitions, in the view that is predicted, without arbitrary parts.
        folder: The run's folder.

    Returns:
        The reward with its thresholds, and the text to read.

    Raises:
        NoPairsError: Too few games to calibrate on, where there are no message roles. With roles, one without a
            calibration is measured with the default threshold, and the run says so: a scripted user has two sentences.
    """
    path = folder / "calibration.json"
    encoder: Encoder = gap.encoder  # type: ignore[assignment] # of text, because jobs play text environments
    files = (path.name, "calibration.txt")
    if damage(folder, *files):
        groups = {role: of for role, of in _open(config, roles, train).items() if not _by_attempts(config, role)}
        results = {role: _calibrated(config, role, encoder, of) for role, of in groups.items()}
        text = "\n\n".join(_described(role, result) for role, result in results.items())
        write_text(folder / "calibration.txt", text + "\n")
        done = {role: result for role, result in results.items() if isinstance(result, Calibration)}
        write_json(path, {role: json.loads(result.to_json()) for role, result in done.items()})
        seal(folder, *files)
    thresholds = {role: result["threshold"] for role, result in read_json(path).items()}
    made = make_gap(config, roles, encoder, thresholds, judge=judge_of(gap))
    return made, (folder / "calibration.txt").read_text(encoding="utf-8")


def paper_gaps(
    config: RWMLConfig,
    roles: bool,
    gap: GapReward,
    train: TransitionDataset,
    tried: Sequence[Transition],
    distances: Sequence[Sequence[float]],
) -> tuple[GapReward, GapReward, str]:
    """Choose thresholds from attempts, as the paper does, where the configuration says so and sets none.

    Args:
        config: The configuration.
        roles: Whether the environment's answers have message roles.
        gap: The reward whose other thresholds are chosen.
        train: Training transitions, on whose pairs is measured what the thresholds let pass.
        tried: T triplets.
        distances: `(T, K)` distances of K attempts at each.

    Returns:
        The filter's reward, the one for training, and the text to read: empty if nothing was to be chosen.

    Raises:
        InvalidConfigError: If too few attempts come near the truth: then any prediction would be rewarded.
    """
    encoder: Encoder = gap.encoder  # type: ignore[assignment] # of text, because jobs play text environments
    known = {role: gap.measure(role).threshold for role in ((_WORDS, TOOL_ROLE) if roles else ("",))}
    chosen, filtering, texts = dict(known), dict(known), []
    for role, of in _open(config, roles, train).items():
        rows = [row for row, transition in zip(distances, tried, strict=True) if not roles or transition.role == role]
        if not _by_attempts(config, role) or not rows:
            continue
        given = None if role == TOOL_ROLE else config.filter.threshold
        if given is None:
            filtering[role], chosen[role] = paper_thresholds(np.array(rows), config.filter.easy_rate)
        else:
            filtering[role], chosen[role] = given, training_threshold(given)
        if given is None and chosen[role] >= 1:
            raise InvalidConfigError(
                f"Expected attempts of which {EASY_SHARE:.0%} come near the truth, to choose as the paper does, "
                f"actual: that share only below {filtering[role]:.4g}. Fine-tune longer (--sft.steps), ask "
                "for fewer right attempts (--filter.easy-rate 0), or choose otherwise (--threshold-by precision)."
            )
        result = _calibrated(config, role, encoder, of, {"threshold": chosen[role], "chosen_by": "paper"})
        passes = (
            _described(role, result) if isinstance(result, Calibration) else f"What it lets pass is unknown. {result}"
        )
        share = share_easy(np.array(rows), filtering[role], config.filter.easy_rate)
        easy = f"{share:.0%} of the triplets are easy at {filtering[role]:.4g}, the filter's τ_d"
        texts.append(
            f"{easy if given is None else f'The filter has τ_d {given:.4g}, as configured'}; for training 0.15 more, "
            f"rounded to 0.2: {chosen[role]:.4g}{too_lax(chosen[role])}. {passes}"
        )
    return (
        make_gap(config, roles, encoder, filtering, filtering=True, judge=judge_of(gap)),
        make_gap(config, roles, encoder, chosen, judge=judge_of(gap)),
        "\n\n".join(texts),
    )


def pass_rates(gap: GapReward, tried: Sequence[Transition], distances: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean reward of the attempts at each triplet, from their distances."""
    return [
        float(np.mean([gap.measure(t.role).reward(d) for d in row])) for t, row in zip(tried, distances, strict=True)
    ]


def _open(config: RWMLConfig, roles: bool, train: Sequence[Transition]) -> dict[str, list[Transition]]:
    """Group by role the transitions whose threshold is not configured; without roles, all are of the role `""`.

    A judge answers Yes or No, so there is nothing to choose.
    """
    groups: dict[str, list[Transition]] = defaultdict(list)
    for transition in train:
        role = transition.role if roles else ""
        if _given(config, role) is None and config.judge is None and (role or not roles):
            groups[role].append(transition)
    return dict(sorted(groups.items()))


def _given(config: RWMLConfig, role: str) -> float | None:
    return config.tool_threshold if role == TOOL_ROLE else config.threshold


def _by_attempts(config: RWMLConfig, role: str) -> bool:
    shape = config.tool_reward if role == TOOL_ROLE else config.reward
    return config.threshold_by == "paper" and shape == "binary"


def _calibrated(
    config: RWMLConfig,
    role: str,
    encoder: Encoder,
    group: Sequence[Transition],
    options: Mapping[str, Any] | None = None,
) -> Calibration | NoPairsError:
    gap = config.tool_gap if role == TOOL_ROLE else config.gap
    options = {"view": config.target_view if role == TOOL_ROLE else "raw", **(options or {})}
    if config.threshold_by == "quantile" and DISTANCES[gap].encodes:
        # The configuration has both.
        assert config.source_encoder is not None
        assert config.source_threshold is not None
        settings = (gap, options["view"], config.seed, config.calibration_pairs)
        source = pair_distances(group, make_encoder(config.source_encoder), *settings)
        target = pair_distances(group, encoder, *settings)
        options |= {"threshold": carried_threshold(config.source_threshold, source, target), "chosen_by": "quantile"}
    numbers = (config.precision, config.seed, config.calibration_pairs)
    if not role:
        return calibrate(group, encoder, *numbers, gap, **options)
    return calibrate_by_role(group, encoder, {role: gap}, *numbers, **options)[role]


def _described(role: str, result: Calibration | NoPairsError) -> str:
    title = f"Messages of role {role!r}:\n" if role else ""
    if isinstance(result, NoPairsError):
        return f"{title}Not calibrated, measured with the default threshold. {result}"
    return title + result.table()
