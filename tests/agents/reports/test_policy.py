"""The report of policy training: which evaluation stands where, and what is said of the last one."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib")

from rwml_gym.agents.config.policy import EpisodeConfig, PolicyConfig, PolicyStageConfig
from rwml_gym.agents.learning.options import ObservationLossConfig
from rwml_gym.agents.reports.policy import Evaluation, write_policy_report
from rwml_gym.statistics import wilson_interval

ROWS = [
    {
        "step": step,
        "success": 0.5,
        "steps": 4.0,
        "sampling_mismatch": mismatch,
        "episodes": episodes,
        "groups": 2,
        "failed_groups": 1,
        "gap_reward": 0.0,
        "seconds_rollout": play,
        "seconds_update": update,
    }
    for step, mismatch, episodes, play, update in ((1, 0.001, 4, 10.0, 1.0), (2, 0.004, 6, 20.0, 2.0))
]


def _report(tmp_path, evaluations, rows=(), config=PolicyConfig()) -> list[str]:  # noqa: B008
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "policy.json").write_text(json.dumps(list(rows)), encoding="utf-8")
    text = write_policy_report(tmp_path, config, evaluations)
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == text + "\n"
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == [vars(e) for e in evaluations]
    assert (tmp_path / "curves.png").is_file()
    return text.splitlines()


def _evaluation(name: str, step: int, won: int, **values) -> Evaluation:
    return Evaluation(name, step, won, 20, **{"invalid": 0.25, "steps": 7.5, **values})


def test_each_set_of_games_has_its_lines_and_its_own_verdict(tmp_path):
    evaluations = [
        _evaluation("training", 0, 2),
        _evaluation("held-out", 0, 10),
        _evaluation("training", 5, 18),
        _evaluation("held-out", 5, 11),
    ]
    lines = _report(tmp_path, evaluations)
    low, high = wilson_interval(18, 20)
    assert [line.split(":")[0].split("updates")[-1].strip() for line in lines[1:]] == [
        *["training games"] * 2,
        "the last is above the 95 % interval of the first",
        *["held-out games"] * 2,
        "the last is inside the 95 % interval of the first",
    ]
    assert lines[2] == (
        f"  after   5 updates  training games: success 0.900 [{low:.3f}, {high:.3f}] of 20, 7.5 steps, 25.0% invalid"
    )


@pytest.mark.parametrize(
    ("first", "last", "verdict"), [(10, 2, "below"), (10, 10, "inside"), (2, 10, "above"), (0, 0, "inside")]
)
def test_the_last_evaluation_is_compared_with_the_first(tmp_path, first, last, verdict):
    middle = 20 - last  # far from both ends: neither the first nor the last
    lines = _report(tmp_path, [_evaluation("held-out", n, won) for n, won in enumerate((first, middle, last))])
    assert lines[-1] == f"  the last is {verdict} the 95 % interval of the first"


def test_where_nothing_says_who_won_the_reward_is_told_and_nothing_judged(tmp_path):
    evaluations = [_evaluation("held-out", n, 0, reward=0.5 + n, judged=False, unit="episodes") for n in (0, 1)]
    lines = _report(tmp_path, evaluations)
    assert lines[1:] == [
        f'  after   {n} updates  held-out episodes: reward {n}.500 (no info["won"]) of 20, 7.5 steps, 25.0% invalid'
        for n in (0, 1)
    ]


def test_episodes_of_one_game_are_no_independent_trials():
    """12 games, 8 episodes each; 4 games are always won."""
    repeated = Evaluation("held-out", 0, 32, 96, 0.0, 1.0, by_game=[[8, 8]] * 4 + [[0, 8]] * 8)
    low, high = repeated.interval
    assert low < 0.1
    assert high > 0.55
    assert Evaluation("held-out", 0, 32, 96, 0.0, 1.0).interval == wilson_interval(32, 96)  # a run that did not count
    once = Evaluation("held-out", 0, 4, 12, 0.0, 1.0, by_game=[[1, 1]] * 4 + [[0, 1]] * 8)
    assert once.interval == wilson_interval(4, 12)
    same = Evaluation("held-out", 0, 12, 24, 0.0, 1.0, by_game=[[1, 2]] * 12)
    assert same.interval == wilson_interval(6, 12)


def test_times_and_episodes_are_summed_and_the_largest_mismatch_is_named(tmp_path):
    lines = _report(tmp_path, [_evaluation("held-out", 0, 3)], ROWS)
    assert lines[-2].startswith("2 updates on 10 episodes: 30 s of rollouts, 3 s of updates.")
    assert lines[-2].endswith("at most 0.0040.")
    assert lines[-1] == "All episodes were lost in 50% of the groups."


def test_what_was_rewarded_and_learnt_is_told_and_which_placebo_ran(tmp_path):
    config = PolicyConfig(
        episode=EpisodeConfig(predictions=True),
        stage=PolicyStageConfig(
            world_model_weight=0.5,
            gap_placebo="shuffled",
            observation_loss=ObservationLossConfig("cross_entropy"),
        ),
    )
    learnt = {"gap_share": 0.2, "observation_loss": 3.0, "observation_probability": 0.1}
    rows = [{**ROWS[0], **learnt}, {**ROWS[1], **learnt, "gap_reward": 0.5, "observation_loss": 2.0}]
    text = "\n".join(_report(tmp_path, [_evaluation("held-out", 0, 3)], rows, config))
    assert "success 0.500 to 0.500, gap reward 0.000 to 0.500. The gap reward was 20%" in text
    assert "cross_entropy, weight 0.05): 3.000 to 2.000, mean probability 0.100 to 0.100" in text
    assert "the gap reward of this run was on shuffled answers" in text
    assert "Placebo of the observation loss: none" in text
