"""The gap reward of a run: which distance measures which message role, and with which threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig
from rwml_gym.diagnostics.calibration import Calibration, NoPairsError, calibrate, calibrate_by_role
from rwml_gym.encoders.cached import Encoder
from rwml_gym.files import read_json, write_json, write_text
from rwml_gym.hashes import damage, seal
from rwml_gym.reward.distances import DEFAULT_THRESHOLD, TOOL_ROLE
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import TransitionDataset

__all__ = ["calibrated_gap", "filter_gap", "make_gap"]

_WORDS = "user"


def make_gap(
    config: RWMLConfig, roles: bool, encoder: str | Encoder, thresholds: Mapping[str, float] | None = None
) -> GapReward:
    """Make the reward of a configuration.

    Args:
        config: The configuration; a threshold in it counts.
        roles: Whether the environment's answers have message roles.
        encoder: See `encoders.cached.make_encoder`.
        thresholds: Calibrated thresholds by message role; where there is none, the distance's default counts.

    Raises:
        DependencyNotInstalled: The encoder or ROUGE needs a library that is not installed.
        EncoderNotFoundError: The encoder cannot be loaded.
    """
    found = dict(thresholds or {})
    if config.threshold is not None:
        found[_WORDS] = config.threshold
    if config.tool_threshold is not None:
        found[TOOL_ROLE] = config.tool_threshold
    threshold = found.get(_WORDS, found.get("", DEFAULT_THRESHOLD))
    if not roles:
        return GapReward(encoder, threshold)
    tool = {"gap": config.tool_gap, "shape": config.tool_reward}
    if TOOL_ROLE in found:
        tool["threshold"] = found[TOOL_ROLE]
    return GapReward(encoder, threshold, measures={TOOL_ROLE: tool})


def filter_gap(config: FilterConfig, gap: GapReward) -> GapReward:
    """Make the reward of the filter's attempts: the reward with the filter's own τ_d, if it has one.

    Args:
        config: The filter.
        gap: The reward of the training, whose measures of message roles stay.
    """
    if config.threshold is None:
        return gap
    measures = {role: asdict(measure) for role, measure in gap.measures.items()}
    return GapReward(gap.encoder, config.threshold, gap.shape, measures, gap.measure().gap)


def calibrated_gap(
    config: RWMLConfig, roles: bool, gap: GapReward, train: TransitionDataset, folder: Path
) -> tuple[GapReward, str]:
    """Calibrate what is not configured, once: `calibration.json` by message role, `calibration.txt` to read.

    Args:
        config: The configuration.
        roles: Whether the environment's answers have message roles.
        gap: The reward that is not calibrated, which holds the encoder.
        train: Training transitions.
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
        results = _calibrate(config, roles, encoder, train)
        text = "\n\n".join(_described(role, result) for role, result in results.items())
        write_text(folder / "calibration.txt", text + "\n")
        done = {role: result for role, result in results.items() if isinstance(result, Calibration)}
        write_json(path, {role: json.loads(result.to_json()) for role, result in done.items()})
        seal(folder, *files)
    thresholds = {role: result["threshold"] for role, result in read_json(path).items()}
    return make_gap(config, roles, encoder, thresholds), (folder / "calibration.txt").read_text(encoding="utf-8")


def _calibrate(
    config: RWMLConfig, roles: bool, encoder: Encoder, train: TransitionDataset
) -> dict[str, Calibration | NoPairsError]:
    settings = (config.precision, config.seed, config.calibration_pairs)
    if not roles:
        return {} if config.threshold is not None else {"": calibrate(train, encoder, *settings)}
    open_roles = [
        transition
        for transition in train
        if transition.role and (config.tool_threshold if transition.role == TOOL_ROLE else config.threshold) is None
    ]
    return calibrate_by_role(open_roles, encoder, {TOOL_ROLE: config.tool_gap}, *settings)


def _described(role: str, result: Calibration | NoPairsError) -> str:
    title = f"Messages of role {role!r}:\n" if role else ""
    if isinstance(result, NoPairsError):
        return f"{title}Not calibrated, measured with the default threshold. {result}"
    return title + result.table()
