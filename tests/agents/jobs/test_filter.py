"""Which triplets the filter keeps, and that GRPO trains on those."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs import world_model
from rwml_gym.agents.jobs.reward import filter_gap
from rwml_gym.agents.jobs.world_model import by_pass_rate, run_world_model
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import TransitionDataset
from tests.helpers.small_world_model import small_config

RATES = [1.0, 0.0, 0.5, 0.9, 0.89, 0.0, 0.1, 1.0, 0.91]
EASY, HARD, BETWEEN = [0, 3, 7, 8], [1, 5], [2, 4, 6]


@pytest.mark.parametrize(
    ("easy", "hard", "kept"),
    [
        (0.0, 0.0, BETWEEN),
        (1.0, 0.0, [*EASY, *BETWEEN]),
        (0.0, 1.0, [*HARD, *BETWEEN]),
        (1.0, 1.0, [*EASY, *HARD, *BETWEEN]),
    ],
)
def test_the_easy_the_hopeless_and_the_rest_are_told_apart(easy, hard, kept):
    """A pass rate of exactly `easy_rate` is too easy; what is neither is always kept; the order stays."""
    config = FilterConfig(easy_rate=0.9, keep_easy=easy, keep_hard=hard)
    for seed in range(20):
        assert by_pass_rate(RATES, config, seed) == sorted(kept)


def test_at_a_rate_of_0_whatever_was_right_once_is_too_easy():
    """The paper's table as it stands; what no attempt got right is not easy."""
    assert by_pass_rate([0.0, 0.1, 1.0], FilterConfig(easy_rate=0.0, keep_easy=0.0, keep_hard=1.0), 0) == [0]
    assert by_pass_rate([], FilterConfig(), 0) == []


def test_the_share_that_is_kept_is_the_probability():
    rates = [1.0] * 3_000 + [0.0] * 3_000 + [0.5] * 3_000
    kept = np.array(by_pass_rate(rates, FilterConfig(keep_easy=0.1, keep_hard=0.7), 1))
    counts = np.histogram(kept, [0, 3_000, 6_000, 9_000])[0]
    assert counts[0] == pytest.approx(300, abs=70)  # 4 standard deviations
    assert counts[1] == pytest.approx(2_100, abs=100)
    assert counts[2] == 3_000


def test_the_draws_follow_from_the_seed():
    rates, config = [1.0] * 200, FilterConfig(keep_easy=0.5)
    assert by_pass_rate(rates, config, 0) == by_pass_rate(rates, config, 0) != by_pass_rate(rates, config, 1)


# In the job


def _config(model, **changes: Any) -> RWMLConfig:
    attempted = FilterConfig(share=0.2, attempts=3, limit=10, easy_rate=1.0, keep_easy=0.0, keep_hard=0.0)
    stage = StageConfig(steps=2, groups=3, group_size=2)
    return small_config(model, **{"filter": attempted, "stage": stage, "max_held_out": 4, **changes})


@pytest.fixture
def tried(monkeypatch) -> list[tuple[int, list, list]]:
    """What the language model was asked for: attempts a triplet, the triplets, and what it wrote."""
    calls: list[tuple[int, list, list]] = []
    attempts = LanguageWorldModel.attempts

    def seen(self, transitions, n, *args, **kwargs):
        written = attempts(self, transitions, n, *args, **kwargs)
        calls.append((n, list(transitions), [[self.prompts.read_prediction(c.text) for c in row] for row in written]))
        return written

    monkeypatch.setattr(LanguageWorldModel, "attempts", seen)
    return calls


def test_grpo_trains_on_what_the_filter_kept(tiny_folder, tmp_path, tried):
    pytest.importorskip("matplotlib")
    config = _config(tiny_folder)
    run_world_model(config, tmp_path)
    ((_, triplets, written),) = [call for call in tried if call[0] == config.filter.attempts]
    assert len(triplets) == 10
    # The rates are those of these attempts at these triplets, each measured alone.
    gap = GapReward("hashing", threshold=config.threshold)
    rates = [
        float(gap(row, [t.next_state] * len(row)).rewards.mean()) for t, row in zip(triplets, written, strict=True)
    ]
    found = json.loads((tmp_path / "filter.json").read_text(encoding="utf-8"))
    assert found["rates"] == pytest.approx(rates)
    assert found["kept"] == [i for i, rate in enumerate(rates) if 0 < rate < 1]
    assert 0 < len(found["kept"]) < 10, rates
    trained = [t for n, asked, _ in tried if n == config.stage.group_size for t in asked]
    kept = [triplets[i] for i in found["kept"]]
    assert trained
    assert all(t in kept for t in trained)
    assert len(trained) == config.stage.steps * min(config.stage.groups, len(kept))
    # Neither what is held out nor what the filter's own model was fine-tuned on is tried.
    played = TransitionDataset.load(tmp_path / "transitions" / "train")
    assert all(t in list(played) for t in triplets)
    assert not {t.game for t in triplets} & set(TransitionDataset.load(tmp_path / "transitions" / "held_out").games)


def test_a_filter_that_keeps_nothing_says_what_to_change(tiny_folder, tmp_path):
    config = _config(tiny_folder, threshold=1e-6)
    with pytest.raises(InvalidConfigError, match=r"kept none.*--filter\.keep-hard"):
        run_world_model(config, tmp_path)
    assert json.loads((tmp_path / "filter.json").read_text(encoding="utf-8")) == {"rates": [0.0] * 10, "kept": []}


def test_without_a_limit_all_that_was_not_fine_tuned_on_is_tried(tiny_folder, tmp_path, tried, monkeypatch):
    learnt: list[list] = []
    step = world_model.sft_step

    def seen(predictor, data, *args):
        learnt.append(list(data))
        return step(predictor, data, *args)

    monkeypatch.setattr(world_model, "sft_step", seen)
    config = _config(tiny_folder)
    config = replace(config, filter=replace(config.filter, limit=0, keep_hard=0.0), threshold=1e-6)
    with pytest.raises(InvalidConfigError, match="kept none"):
        run_world_model(config, tmp_path)
    ((_, triplets, _),) = [call for call in tried if call[0] == config.filter.attempts]
    played = list(TransitionDataset.load(tmp_path / "transitions" / "train"))
    assert len(triplets) == len(played) - round(0.2 * len(played))
    # Both parts together are everything, once.
    fine_tuned = learnt[0]  # each step is given all of it, and draws its batch
    assert sorted(map(played.index, [*fine_tuned, *triplets])) == sorted(map(played.index, played))
    assert triplets != sorted(triplets, key=played.index)  # a limit would take a random part


def test_the_filters_own_threshold_counts_in_the_filter_only(tiny_folder, tmp_path, tried):
    """A smaller τ_d finds fewer attempts right; the training goes on with its own."""
    config = _config(tiny_folder, stage=StageConfig(steps=1, groups=3, group_size=2))
    config = replace(config, filter=replace(config.filter, threshold=0.9, keep_hard=1.0))
    assert config.threshold > 0.9
    run_world_model(config, tmp_path)
    ((_, triplets, written),) = [call for call in tried if call[0] == config.filter.attempts]
    rates = {
        threshold: [
            float(GapReward("hashing", threshold)(row, [t.next_state] * len(row)).rewards.mean())
            for t, row in zip(triplets, written, strict=True)
        ]
        for threshold in (config.filter.threshold, config.threshold)
    }
    found = json.loads((tmp_path / "filter.json").read_text(encoding="utf-8"))
    assert found["rates"] == pytest.approx(rates[0.9]) != pytest.approx(rates[config.threshold])
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["threshold"] == config.threshold


def test_measures_of_message_roles_stay_in_the_filter():
    gap = GapReward("hashing", 0.4, measures={"tool": {"gap": "rouge", "threshold": 0.3, "shape": "continuous"}})
    filtered = filter_gap(FilterConfig(threshold=0.15), gap)
    assert (filtered.threshold, filtered.measures) == (0.15, gap.measures)
    assert filtered.encoder is gap.encoder
    assert filter_gap(FilterConfig(), gap) is gap


def test_what_the_filter_kept_can_be_trained_on_elsewhere(tiny_folder, tmp_path):
    run_world_model(_config(tiny_folder), tmp_path)
    kept = TransitionDataset.load(tmp_path / "transitions" / "kept")
    played = TransitionDataset.load(tmp_path / "transitions" / "train")
    assert len(kept) == len(json.loads((tmp_path / "filter.json").read_text(encoding="utf-8"))["kept"])
    assert all(t in list(played) for t in kept)
