"""The paper's presets are the paper's, value by value; where they are not, the reason is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rwml_gym.agents.config.paper import OPEN, PAPER, TRIPLETS, choices, deviations, other_changes, value_at
from rwml_gym.agents.config.policy import POLICY_PRESETS, PolicyConfig
from rwml_gym.agents.config.sft import SFT_PRESETS, SFTJobConfig
from rwml_gym.agents.config.world_model import PRESETS, FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.errors import InvalidConfigError

PRESETS_OF: dict[str, Any] = {"rwml": PRESETS, "sft": SFT_PRESETS, "policy": POLICY_PRESETS}
CASES = [(world, command) for world in PAPER for command in PAPER[world]]
LORA = {"lora_rank", "grpo.learning_rate"}
# Where a preset is not the paper's. Every other value of the table is compared with it.
DEVIATIONS = {
    ("alfworld", "rwml"): {*LORA, "filter.easy_rate", "collect.drop_invalid"},
    ("alfworld", "sft"): {"lora_rank", "sft.learning_rate"},
    ("alfworld", "policy"): {"lora_rank"},
    ("tau2", "rwml"): {*LORA, "filter.easy_rate", "env_arguments"},
    ("tau2", "sft"): {"lora_rank", "sft.learning_rate"},
    ("tau2", "policy"): {"lora_rank", "env_arguments"},
}
# What the paper has and this package has no option for.
ABSENT = {"collect.drop_invalid"}


def preset(world: str, command: str) -> Any:
    return PRESETS_OF[command][f"paper-{world}"]


@pytest.mark.parametrize(("world", "command"), CASES)
def test_a_preset_is_the_papers_but_for_what_has_a_reason(world, command):
    config = preset(world, command)
    assert (config.env, config.command) == (world, command)
    given = PAPER[world][command]
    same = {path for path in given if value_at(config, path) == given[path].value}
    assert given.keys() - same == DEVIATIONS[world, command]
    found = deviations(config)
    assert {deviation.path for deviation in found} == DEVIATIONS[world, command]
    for deviation in found:
        assert deviation.why == given[deviation.path].why
        assert deviation.place
        assert deviation.path in str(deviation)
    assert all(each.place for each in given.values())


@pytest.mark.parametrize(("world", "command"), CASES)
def test_every_setting_of_the_table_is_one_of_the_configuration(world, command):
    config = preset(world, command)
    paths = {*PAPER[world][command], *OPEN[command]}
    assert {path for path in paths if value_at(config, path) == "no such option"} <= ABSENT
    assert len(choices(config)) == len(OPEN[command])
    assert not any("set for this run" in choice for choice in choices(config))


@pytest.mark.parametrize(("world", "updates"), [("alfworld", 988), ("tau2", 349)])
def test_epochs_over_the_papers_triplets_are_its_numbers_of_updates(world, updates):
    kept = TRIPLETS[world].kept
    assert preset(world, "rwml").stage.updates(kept) == updates
    assert preset(world, "sft").sft.updates(kept) == updates


def test_the_papers_triplets_are_those_of_its_text():
    triplets = TRIPLETS["alfworld"]
    assert triplets.validation / (triplets.validation + triplets.tried) == pytest.approx(0.1, abs=0.002)
    easy = (1 - triplets.kept / triplets.tried) / 0.9  # of which one in ten is kept
    assert easy == pytest.approx(0.275, abs=0.001)


@pytest.mark.parametrize("world", PAPER)
def test_lora_gets_ten_times_the_learning_rate_of_all_weights(world):
    for command, path in (("rwml", "grpo.learning_rate"), ("sft", "sft.learning_rate")):
        given = PAPER[world][command][path].value
        assert value_at(preset(world, command), path) == pytest.approx(10 * given)
    assert preset(world, "rwml").sft == preset(world, "sft").sft  # the filter's model is fine-tuned as the baseline is


def test_the_papers_tasks_of_tau2_are_those_that_there_are():
    pytest.importorskip("tau2")
    from rwml_gym.agents.runs.worlds import Source

    config = preset("tau2", "rwml")
    with Source(config).make(split=config.split)() as env:
        assert len(env.unwrapped.games.names) == config.collect.games == preset("tau2", "policy").stage.games


def test_what_an_option_changes_is_listed_as_such():
    config = replace(preset("alfworld", "rwml"), threshold=0.3, history=8)
    (changed,) = (found for found in deviations(config) if found.path == "threshold")
    assert (changed.paper, changed.here, changed.why) == (0.2, 0.3, "set for this run")
    assert "history: 8; set for this run" in choices(config)
    literal = replace(config, filter=replace(config.filter, easy_rate=0.0))
    assert "filter.easy_rate" not in {found.path for found in deviations(literal)}


def test_no_option_that_differs_from_the_preset_goes_unsaid():
    plain = PRESETS["paper-alfworld"]
    assert other_changes(plain) == []
    changed = replace(
        plain,
        reward="continuous",
        placebo="random",
        nuisance=0.5,
        grpo=replace(plain.grpo, temperature=2.0),
        encoder="x",
    )
    assert set(other_changes(changed)) == {
        "reward: continuous instead of binary",
        "nuisance: 0.5 instead of 0",
        "placebo: random instead of none",
        "grpo.temperature: 2 instead of 1",
    }
    assert "encoder" in {deviation.path for deviation in deviations(changed)}


def test_an_environment_that_the_paper_has_not_has_nothing_to_deviate_from():
    assert deviations(RWMLConfig(env="toy")) == choices(RWMLConfig(env="toy")) == []


# Lengths


@pytest.mark.parametrize(("cls", "usual"), [(StageConfig, 100), (SFTConfig, 60)])
def test_a_length_is_given_in_steps_or_in_epochs(cls, usual):
    assert cls().updates(10**6) == usual
    assert cls(steps=7).updates(10**6) == 7
    assert cls(steps=0).updates(10**6) == 0
    assert cls(epochs=1.5).updates(80) == 15
    assert cls(epochs=1).updates(1) == 1
    with pytest.raises(InvalidConfigError, match=r"steps or epochs, actual: steps 7 and epochs 2\. Leave one out"):
        cls(steps=7, epochs=2)
    with pytest.raises(InvalidConfigError, match="epochs above 0"):
        cls(epochs=0)


def test_epochs_leave_no_room_for_further_rounds():
    with pytest.raises(InvalidConfigError, match=r"rounds of 1 with epochs.*actual: 3"):
        StageConfig(epochs=2, rounds=3)


def test_imitation_is_measured_in_steps():
    with pytest.raises(InvalidConfigError, match=r"sft\.steps for target 'actions'"):
        SFTJobConfig(sft=SFTConfig(epochs=2))
    assert SFTJobConfig(target="states", sft=SFTConfig(epochs=2)).sft.updates(80) == 20


@pytest.mark.parametrize("changes", [{"target": "actions", "transitions": "x"}, {"target": "states"}])
def test_held_out_transitions_are_measured_beside_those_that_are_learnt(changes):
    with pytest.raises(InvalidConfigError, match="Give both, with target 'states'"):
        SFTJobConfig(held_out_transitions="y", **changes)


@pytest.mark.parametrize(("rate", "easy"), [(0.0, [False, True, True]), (0.9, [False, False, True])])
def test_both_readings_of_too_easy_are_a_rate(rate, easy):
    config = FilterConfig(easy_rate=rate)
    assert [config.too_easy(found) for found in (0.0, 0.1, 1.0)] == easy


def test_a_threshold_of_the_filter_is_one_of_the_distance():
    assert FilterConfig().threshold is None
    for wrong, gap, most in ((0.0, "cosine", 2), (2.5, "cosine", 2), (1.5, "rouge", 1)):
        with pytest.raises(InvalidConfigError, match=f"threshold above 0 and at most {most}"):
            RWMLConfig(gap=gap, filter=FilterConfig(threshold=wrong))


def test_policy_training_and_evaluation_have_step_budgets_of_their_own():
    config = PolicyConfig()
    assert config.evaluation.max_steps is None
    assert preset("alfworld", "policy").episode.max_steps < preset("alfworld", "policy").evaluation.max_steps
