"""The gap reward of a run: which gap measures which message role, and with which threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.diagnostics.calibration import Calibration, NoPairsError, calibrate, calibrate_by_role
from rwml_gym.encoders.cached import Encoder
from rwml_gym.files import read_json, write_json
from rwml_gym.reward.distances import DEFAULT_THRESHOLD
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import TransitionDataset

__all__ = ["calibrated_gap", "make_gap"]

_TOOL, _WORDS = "tool", "user"


def make_gap(config: RWMLConfig, encoder: str | Encoder, thresholds: Mapping[str, float] | None = None) -> GapReward:
    """The reward of a configuration.

    Args:
        config: The configuration; a threshold in it counts.
        encoder: See `embedding.make_encoder`.
        thresholds: Calibrated ones by message role; where there is none, it is the gap's default.

    Raises:
        DependencyNotInstalled: The encoder or ROUGE needs a library that is not installed.
        EncoderNotFoundError: The encoder cannot be loaded.
    """
    found = dict(thresholds or {})
    if config.threshold is not None:
        found[_WORDS] = config.threshold
    if config.tool_threshold is not None:
        found[_TOOL] = config.tool_threshold
    threshold = found.get(_WORDS, found.get("", DEFAULT_THRESHOLD))
    if config.env != "tau2":
        return GapReward(encoder, threshold)
    tool = {"gap": config.tool_gap, "shape": config.tool_reward}
    return GapReward(
        encoder,
        threshold,
        measures={_TOOL: {**tool, "threshold": found[_TOOL]} if _TOOL in found else tool},
    )


def calibrated_gap(config: RWMLConfig, encoder: Encoder, train: TransitionDataset, folder: Path) -> GapReward:
    """Calibrates what is not configured, once: `calibration.json` by message role, `calibration.txt` to read.

    Args:
        config: The configuration.
        encoder: The encoder.
        train: Training transitions.
        folder: The run's folder.

    Raises:
        NoPairsError: Too few ALFWorld games to calibrate on. In τ²-bench, where the scripted user has two sentences, a
            message role without a calibration is measured with the default threshold, and the run says so.
    """
    path = folder / "calibration.json"
    if not path.is_file():
        results = _calibrate(config, encoder, train)
        text = "\n\n".join(_described(role, result) for role, result in results.items())
        (folder / "calibration.txt").write_text(text + "\n", encoding="utf-8")
        done = {role: result for role, result in results.items() if isinstance(result, Calibration)}
        write_json(path, {role: json.loads(result.to_json()) for role, result in done.items()})
    print((folder / "calibration.txt").read_text(encoding="utf-8"))
    return make_gap(config, encoder, {role: result["threshold"] for role, result in read_json(path).items()})


def _calibrate(config: RWMLConfig, encoder: Encoder, train: TransitionDataset) -> dict[str, Calibration | NoPairsError]:
    settings = (config.precision, config.seed, config.calibration_pairs)
    if config.env != "tau2":
        return {} if config.threshold is not None else {"": calibrate(train, encoder, *settings)}
    open_kinds = [
        transition
        for transition in train
        if transition.role and (config.tool_threshold if transition.role == _TOOL else config.threshold) is None
    ]
    return calibrate_by_role(open_kinds, encoder, {_TOOL: config.tool_gap}, *settings)


def _described(role: str, result: Calibration | NoPairsError) -> str:
    title = f"Messages of role {role!r}:\n" if role else ""
    if isinstance(result, NoPairsError):
        return f"{title}Not calibrated, measured with the default threshold. {result}"
    return title + result.table()
