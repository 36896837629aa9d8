"""Which triplets the filter keeps, and that GRPO trains on those."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs import world_model
from rwml_gym.agents.jobs.filter import by_pass_rate, group_signal, signal_table
from rwml_gym.agents.jobs.reward import make_gap
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.reports.evaluate import outcome_type
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, TransitionDataset, Turn
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


def test_a_window_of_pass_rates_leaves_out_both_sides():
    window = FilterConfig(easy_rate=1.0, keep_easy=1.0, keep_hard=1.0, min_rate=0.1, max_rate=0.9)
    assert by_pass_rate(RATES, window, 0) == [2, 3, 4, 6]
    with pytest.raises(InvalidConfigError, match="min_rate"):
        FilterConfig(min_rate=0.6, max_rate=0.5)


def test_epochs_of_triplets_that_change_are_refused():
    with pytest.raises(InvalidConfigError, match=r"stage\.steps with filter\.refresh_every 5"):
        RWMLConfig(stage=StageConfig(epochs=2), filter=FilterConfig(refresh_every=5))


def test_the_signal_of_a_group_is_the_chance_that_its_rewards_differ():
    generator = np.random.default_rng(0)
    for rate in (0.0, 0.1, 0.5, 0.9, 1.0):
        drawn = generator.random((20_000, 8)) < rate
        assert group_signal([rate], 8)[0] == pytest.approx(np.mean(drawn.any(1) & ~drawn.all(1)), abs=0.01)


def test_the_table_says_of_each_outcome_what_can_be_learnt():
    def made(action: str, refused: bool = False) -> Transition:
        turn = (Turn("", "A room."),)
        return Transition(turn, action, "x", invalid_action=refused)

    tried = [made("go to fridge 1")] * 6 + [made("look")] * 5 + [made("fly", True)] * 5 + [made("take mug 1")]
    rates = [0.5] * 6 + [0.0] * 5 + [1.0] * 5 + [0.5]
    rows = [line.split() for line in signal_table(tried, rates, [0, 1, 16], 2).splitlines()]
    assert rows[1] == ["go", "6", "0.50", "0%", "0%", "50%", "2"]
    assert rows[2] == ["look", "5", "0.00", "100%", "0%", "0%", "0"]
    assert rows[3] == ["(invalid)", "5", "1.00", "0%", "100%", "0%", "0"]
    assert rows[4][:3] == ["other", "actions", "1"]
    assert rows[5][0] == "all"


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


@pytest.mark.long
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


@pytest.mark.long
def test_without_a_limit_all_that_was_not_fine_tuned_on_is_tried(tiny_folder, tmp_path, tried, monkeypatch):
    learnt: list[list] = []
    step = world_model.sft_step

    def seen(predictor, data, *args, **named):
        learnt.append(list(data))
        return step(predictor, data, *args, **named)

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


@pytest.mark.long
def test_the_policy_as_it_is_tries_the_triplets_again(tiny_folder, tmp_path, tried):
    pytest.importorskip("matplotlib")
    attempted = FilterConfig(share=0.2, attempts=3, limit=10, keep_easy=1.0, keep_hard=1.0, refresh_every=2)
    config = _config(tiny_folder, filter=attempted, stage=StageConfig(steps=5, groups=3, group_size=2))
    run_world_model(config, tmp_path)
    files = [json.loads((tmp_path / f"filter{n}.json").read_text(encoding="utf-8")) for n in ("", "_1", "_2")]
    assert not (tmp_path / "filter_3.json").exists()
    calls = [call for call in tried if call[0] == 3]
    assert [triplets == calls[0][1] for _, triplets, _ in calls] == [True] * 3
    assert [written == calls[0][2] for _, _, written in calls] == [True, False, False]  # other draws of another policy
    assert [len(file["rates"]) for file in files] == [10] * 3


@pytest.mark.long
def test_all_of_the_data_may_be_fine_tuned_on_and_tried(tiny_folder, tmp_path, tried):
    pytest.importorskip("matplotlib")
    attempted = FilterConfig(share=1.0, attempts=3, keep_easy=1.0, keep_hard=1.0)
    run_world_model(_config(tiny_folder, filter=attempted), tmp_path)
    ((_, triplets, _),) = [call for call in tried if call[0] == 3]
    played = list(TransitionDataset.load(tmp_path / "transitions" / "train"))
    assert sorted(map(played.index, triplets)) == sorted(map(played.index, played))


@pytest.mark.long
@pytest.mark.parametrize("placebo", ["shuffled", "random"])
def test_a_placebo_changes_what_is_learnt_and_not_what_is_held_out(tiny_folder, tmp_path, tried, placebo):
    pytest.importorskip("matplotlib")
    attempted = FilterConfig(share=1.0, attempts=3, keep_easy=1.0, keep_hard=1.0)
    results = run_world_model(_config(tiny_folder, filter=attempted, placebo=placebo), tmp_path)
    ((_, triplets, _),) = [call for call in tried if call[0] == 3]
    played = list(TransitionDataset.load(tmp_path / "transitions" / "train"))
    truth = sorted(t.next_state for t in played)
    learnt = sorted(t.next_state for t in triplets)
    assert (learnt == truth) == (placebo == "shuffled")
    assert Counter((t.history, t.action) for t in triplets) == Counter((t.history, t.action) for t in played)
    held_out = [t.next_state for t in TransitionDataset.load(tmp_path / "transitions" / "held_out")]
    assert all(p.next_state in held_out for p in results["RWML"])


@pytest.mark.long
def test_a_placebo_is_measured_as_the_run_that_it_is_compared_with(tiny_folder, tmp_path):
    pytest.importorskip("matplotlib")
    collect = replace(small_config(tiny_folder).collect, games=12)
    every = FilterConfig(share=0.2, attempts=1, keep_easy=1.0, keep_hard=1.0)
    found = []
    for placebo in ("none", "random"):
        folder = tmp_path / placebo
        run_world_model(
            _config(tiny_folder, placebo=placebo, threshold=None, collect=collect, filter=every, max_held_out=0), folder
        )
        lookup = json.loads((folder / "evaluation" / "most_frequent.json").read_text())
        found.append(([row["reward"] for row in lookup], json.loads((folder / "calibration.json").read_text())))
    assert found[0] == found[1]
    assert any(found[0][0])


@pytest.mark.long
@pytest.mark.parametrize("balance", [False, True])
def test_batches_are_spread_over_what_happened_if_wanted(tiny_folder, tmp_path, tried, balance):
    pytest.importorskip("matplotlib")
    attempted = FilterConfig(share=1.0, attempts=3, keep_easy=1.0, keep_hard=1.0)
    stage = StageConfig(steps=12, groups=4, group_size=2, balance=balance)
    run_world_model(_config(tiny_folder, filter=attempted, stage=stage), tmp_path)
    trained = Counter(outcome_type(t) for n, asked, _ in tried if n == 2 for t in asked)
    played = Counter(outcome_type(t) for t in TransitionDataset.load(tmp_path / "transitions" / "train"))
    assert len(played) > 1
    spread = max(trained.values()) - min(trained.values())
    assert (spread <= 1) == balance, (trained, played)


@pytest.mark.long
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
    config = RWMLConfig(threshold=0.4, tool_threshold=0.3, filter=FilterConfig(threshold=0.15))
    training, filtering = (make_gap(config, True, "hashing", filtering=wanted) for wanted in (False, True))
    assert (training.threshold, filtering.threshold) == (0.4, 0.15)
    assert filtering.measures == training.measures
    assert make_gap(RWMLConfig(threshold=0.4), True, "hashing", filtering=True).threshold == 0.4


@pytest.mark.long
def test_what_the_filter_kept_can_be_trained_on_elsewhere(tiny_folder, tmp_path):
    run_world_model(_config(tiny_folder), tmp_path)
    kept = TransitionDataset.load(tmp_path / "transitions" / "kept")
    played = TransitionDataset.load(tmp_path / "transitions" / "train")
    assert len(kept) == len(json.loads((tmp_path / "filter.json").read_text(encoding="utf-8"))["kept"])
    assert all(t in list(played) for t in kept)
