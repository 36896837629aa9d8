"""How far seeds vary: what the committed runs of the same settings found, beside the one run that was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rwml_gym.agents.claims.records import COMMITTED, Record, measured, read_records
from rwml_gym.agents.claims.tables import SIZES, table_names
from rwml_gym.statistics import student_interval

__all__ = ["over_seeds"]

# What may differ between a run and the committed ones without making it another experiment.
_FREE = (
    "seed",
    "dtype",
    "grpo.micro_tokens",
    "tracker",
    "push_to_hub",
    "faults.on_nan",
    "faults.on_save_error",
    "faults.on_env_error",
)
_COMPARED = (
    ("RWML - warm start", "rwml", "warm_start"),
    ("RWML - SFT same time", "rwml", "sft_same_time"),
    ("RWML - most frequent", "rwml", "most_frequent"),
)


def over_seeds(config: Any) -> list[str]:
    """Return lines on how far the differences of the reward vary over committed runs of the same settings.

    Runs on different devices stand apart: SFT for the same time has that device's time.

    Args:
        config: Configuration of a run of `rwml-gym train rwml`.

    Returns:
        The lines; none where no two such runs on one device are committed.
    """
    by_device: dict[str, dict[int, Record]] = {}
    for record in _same(config):
        by_device.setdefault(record.versions["device"], {})[record.seed] = record
    lines = []
    for device, records in by_device.items():
        if len(records) > 1:
            lines += _varied(device, [records[seed] for seed in sorted(records)])
    return lines


def _varied(device: str, records: Sequence[Record]) -> list[str]:
    lines = [f"How far seeds vary: the committed runs of these settings on {device} (95 % interval over seeds):"]
    for label, ours, other in _COMPARED:
        names = [f"rwml.{model}.all" for model in (ours, other)]
        values = {r.seed: r.metrics[names[0]] - r.metrics[names[1]] for r in records if set(names) <= set(r.metrics)}
        if len(values) > 1:
            mean, low, high = student_interval(list(values.values()))
            each = ", ".join(f"{value:+.3f} ({seed})" for seed, value in values.items())
            lines.append(f"  {label:<28} {mean:+.3f} [{low:+.3f}, {high:+.3f}]  by seed: {each}")
    return lines


def _same(config: Any) -> list[Record]:
    found = []
    for name in table_names():
        records = read_records(COMMITTED, name)
        for record in (record for size in SIZES for record in measured(records, size)):
            alone = [stage.run for stage in record.stages] == ["rwml"]
            if alone and record.stages[0].has(config, _FREE):
                found.append(record)
    return found
