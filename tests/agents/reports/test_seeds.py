"""How far seeds vary is told from committed runs of the same settings, and from no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("pydantic")

from rwml_gym.agents.claims.records import Record, StageRecord, add_record, settings_of
from rwml_gym.agents.config.world_model import PRESETS
from rwml_gym.agents.reports import seeds
from rwml_gym.agents.reports.seeds import over_seeds

DEMO = PRESETS["demo"]


@pytest.fixture
def committed(tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "COMMITTED", tmp_path)

    def add(config, rwml, status="finished", run="rwml", size="tiny", device="cpu"):
        numbers = {"rwml.rwml.all": rwml, "rwml.warm_start.all": 0.5}
        stages = [StageRecord(run, settings_of(config))]
        settings = ("SFT 1 x", size, config.seed, status, "", "", 1.0, "", "", {"device": device}, stages, numbers)
        add_record(tmp_path, "plateau", Record(*settings))

    return add


def test_other_seeds_of_the_same_settings_are_shown_with_their_interval(committed):
    for seed, rwml in ((0, 0.6), (1, 0.5), (2, 0.7)):
        committed(replace(DEMO, seed=seed), rwml)
    head, line = over_seeds(replace(DEMO, seed=7, dtype="float32"))
    assert "on cpu" in head
    words = "RWML - warm start +0.100 [-0.148, +0.348] by seed: +0.100 (0), +0.000 (1), +0.200 (2)"
    assert line.split() == words.split()


def test_runs_of_another_device_stand_apart(committed):
    for seed, rwml in ((0, 0.6), (1, 0.5)):
        committed(replace(DEMO, seed=seed), rwml)
        committed(replace(DEMO, seed=seed), rwml + 0.1, "stopped", size="gpu-small", device="H100")
    heads = [line for line in over_seeds(DEMO) if line.startswith("How far")]
    assert [head.split(" (")[0].split()[-1] for head in heads] == ["cpu", "H100"]


def test_other_settings_failed_runs_and_single_ones_say_nothing(committed):
    committed(replace(DEMO, seed=0), 0.6)
    committed(replace(DEMO, seed=1), 0.6, "failed")
    committed(replace(DEMO, seed=2), 0.6, run="policy")
    committed(replace(DEMO, seed=3, history=3), 0.6)
    assert over_seeds(DEMO) == []
