from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym import transitions
from rwml_gym.errors import InvalidConfigError, StorageError
from rwml_gym.hashes import seal
from rwml_gym.transitions import InvalidDatasetError, Transition, TransitionDataset, Turn, action_type

# All of Unicode but lone surrogates, which no UTF-8 file can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TURNS = st.builds(Turn, action=TEXT, observation=TEXT)
TRANSITIONS = st.builds(
    Transition,
    history=st.lists(TURNS, min_size=1, max_size=4).map(tuple),
    action=TEXT,
    next_state=TEXT,
    task=TEXT,
    env_id=TEXT,
    game=TEXT,
    episode=st.integers(0, 2**40),
    step=st.integers(0, 100),
    won=st.sampled_from([True, False, None]),
    invalid_action=st.booleans(),
    data_version=TEXT,
    role=TEXT,
)


def episode(game: str, steps: int, window: int = 4) -> list[Transition]:
    turns = [Turn("", f"start of {game}")]
    result = []
    for step in range(steps):
        result.append(Transition(tuple(turns[-window:]), f"act {step}", f"{game} {step}", game=game, step=step))
        turns.append(Turn(f"act {step}", f"{game} {step}"))
    return result


def test_a_dataset_is_a_sequence():
    data = TransitionDataset(episode("a", 3) + episode("b", 2))
    assert len(data) == 5
    assert data[0].state == "start of a"
    assert data[-1] is list(data)[-1]
    assert isinstance(data[1:3], TransitionDataset)
    assert [transition.step for transition in data[1:3]] == [1, 2]
    assert data.games == ("a", "b")
    assert repr(data) == "TransitionDataset(5 transitions of 2 games)"
    assert data == TransitionDataset(list(data))
    assert data != data[:4]


def test_a_transition_without_a_state_is_refused():
    with pytest.raises(InvalidConfigError, match="at least one turn of history, actual: 0 in transition 1"):
        TransitionDataset([*episode("a", 1), Transition((), "look", "A room.")])


def test_windows_keep_the_last_turns():
    data = TransitionDataset(episode("a", 6)).with_window(2)
    assert [len(transition.history) for transition in data] == [1, 2, 2, 2, 2, 2]
    assert data[5].history == (Turn("act 3", "a 3"), Turn("act 4", "a 4"))


def test_a_window_may_be_longer_than_an_episode_but_not_than_what_was_recorded():
    data = TransitionDataset(episode("a", 3, window=4))
    assert data.with_window(10) == data
    with pytest.raises(InvalidConfigError, match=r"at most 4 turns.*actual: 5\. Use 4"):
        TransitionDataset(episode("a", 6, window=4)).with_window(5)
    with pytest.raises(InvalidConfigError, match=r"all of the episode \(0\)"):
        TransitionDataset(episode("a", 6, window=4)).with_window(0)
    assert data.with_window(0) == data
    for odd in (-1, 2.5, "2"):
        with pytest.raises(InvalidConfigError, match=rf"at least 0 turns \(0 for all\), actual: {odd!r}"):
            data.with_window(odd)


@given(
    games=st.lists(st.integers(0, 9), min_size=2, max_size=30), held_out=st.floats(0.01, 0.99), seed=st.integers(0, 9)
)
def test_splits_share_no_game_and_lose_nothing(games, held_out, seed):
    if len(set(games)) < 2:
        games = [*games, 10]
    data = TransitionDataset(step for game in games for step in episode(str(game), 2))
    train, held = data.split_by_game(held_out, seed)
    assert not set(train.games) & set(held.games)
    assert train.games
    assert held.games
    assert sorted(map(repr, [*train, *held])) == sorted(map(repr, data))
    assert (train, held) == data.split_by_game(held_out, seed)
    # The order of recording does not move a game to the other side.
    backwards = TransitionDataset(reversed(list(data))).split_by_game(held_out, seed)
    assert set(backwards[1].games) == set(held.games)


def test_splits_hold_out_the_share_asked_for_to_the_nearest_game():
    data = TransitionDataset(step for game in range(20) for step in episode(str(game), 1))
    for share, games in ((0.25, 5), (0.27, 5), (0.28, 6), (0.01, 1), (0.99, 19)):
        assert len(data.split_by_game(share, seed=1)[1].games) == games
    assert data.split_by_game(0.25, seed=1)[1] != data.split_by_game(0.25, seed=2)[1]


@pytest.mark.parametrize("held_out", [0, 1, -0.1, 2])
def test_shares_out_of_range_are_refused(held_out):
    with pytest.raises(InvalidConfigError, match=r"`held_out` in \(0, 1\)"):
        TransitionDataset(episode("a", 1) + episode("b", 1)).split_by_game(held_out)


def test_one_game_cannot_be_split():
    with pytest.raises(InvalidConfigError, match="at least 2 games, actual: 1"):
        TransitionDataset(episode("a", 9)).split_by_game(0.5)


@settings(max_examples=15, deadline=None)
@given(st.lists(TRANSITIONS, max_size=4))
def test_any_text_comes_back_from_disk(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("data") / "set"
    data = TransitionDataset(rows)
    data.save(path)
    assert TransitionDataset.load(path) == data


def test_lone_surrogates_become_the_replacement_character(tmp_path):
    TransitionDataset([Transition((Turn("\ud800", "a\udfffb"),), "x", "🙂\ud83d")]).save(tmp_path / "set")
    (back,) = TransitionDataset.load(tmp_path / "set")
    assert (back.history[0], back.next_state) == (Turn("\ufffd", "a\ufffdb"), "🙂\ufffd")


def test_saving_is_silent_replaces_an_earlier_set_and_leaves_nothing_else(tmp_path, capfd):
    path = tmp_path / "new" / "set"
    TransitionDataset(episode("a", 3)).save(path)
    TransitionDataset(episode("b", 2)).save(str(path))
    assert TransitionDataset.load(path).games == ("b",)
    assert [entry.name for entry in path.parent.iterdir()] == ["set"]
    assert capfd.readouterr() == ("", "")


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    TransitionDataset(episode("a", 3)).save(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    TransitionDataset(episode("b", 2)).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert TransitionDataset.load(tmp_path / "real").games == ("b",)
    assert {entry.name for entry in tmp_path.iterdir()} == {"real", "link"}


@pytest.mark.parametrize(("error", "seen"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, StorageError)])
@pytest.mark.parametrize("place", [1, 2])
def test_an_interruption_at_any_rename_keeps_the_earlier_set(tmp_path, monkeypatch, error, seen, place):
    TransitionDataset(episode("a", 3)).save(tmp_path / "set")
    rename, calls = Path.rename, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == place:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(seen):
        TransitionDataset(episode("b", 2)).save(tmp_path / "set")
    assert TransitionDataset.load(tmp_path / "set").games == ("a",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_other_tools_can_read_the_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    TransitionDataset(episode("a", 3)).save(tmp_path / "set")
    rows = datasets.load_from_disk(str(tmp_path / "set"))
    assert rows["next_state"][:] == ["a 0", "a 1", "a 2"]
    assert rows[0]["history"] == [{"action": "", "observation": "start of a"}]


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidConfigError, match="a new folder or a saved dataset"):
        TransitionDataset(episode("a", 1)).save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_other_files_in_a_saved_set_are_not_removed(tmp_path):
    path = tmp_path / "set"
    TransitionDataset(episode("a", 3)).save(path)
    (path / "thesis.tex").write_text("years of work")
    (path / "notes").mkdir()
    with pytest.raises(InvalidConfigError, match=r"actual: also notes, thesis\.tex\. Move them"):
        TransitionDataset(episode("b", 1)).save(path)
    assert (path / "thesis.tex").read_text() == "years of work"
    assert TransitionDataset.load(path).games == ("a",)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InvalidDatasetError, match=r"Expected a folder written by .*, actual: .*nowhere"):
        TransitionDataset.load(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("how", ["emptied", "cut", "removed"])
def test_a_damaged_folder_is_named(tmp_path, damage, how):
    TransitionDataset(episode("a", 50)).save(tmp_path / "set")
    victim = tmp_path / "set" / damage
    content = victim.read_bytes()
    if how == "removed":
        victim.unlink()
    else:
        victim.write_bytes(b"" if how == "emptied" else content[: len(content) // 2])
    with pytest.raises(InvalidDatasetError, match="set"):
        TransitionDataset.load(tmp_path / "set")


def test_a_dataset_of_another_kind_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"question": ["?"]}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InvalidDatasetError, match=r"Expected readable transitions in .*Record and save"):
        TransitionDataset.load(tmp_path / "set")


def test_a_folder_from_before_roles_were_recorded_still_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = TransitionDataset(episode("a", 3))
    data.save(tmp_path / "new")
    stored = datasets.load_from_disk(str(tmp_path / "new"))
    stored.remove_columns(["role"]).save_to_disk(str(tmp_path / "old"))
    assert TransitionDataset.load(tmp_path / "old") == data
    stored.remove_columns(["role", "game"]).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(InvalidDatasetError, match=r"Expected readable transitions in .*Record and save"):
        TransitionDataset.load(tmp_path / "other")


def flip(file, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position // 8 % len(content)] ^= 1 << position % 8
    file.write_bytes(content)


@pytest.mark.long
def test_every_flipped_bit_is_noticed(tmp_path):
    """Some of them end the interpreter if Arrow reads them, others are other data."""
    data = TransitionDataset(episode("a", 20))
    rng = np.random.default_rng(0)
    data.save(tmp_path / "set")
    files = sorted(file.name for file in (tmp_path / "set").iterdir())
    assert files == ["data-00000-of-00001.arrow", "dataset_info.json", "format.json", "hashes.json", "state.json"]
    for number in range(200):
        data.save(tmp_path / "set")
        file = tmp_path / "set" / files[number % 5]
        flip(file, int(rng.integers(8 * file.stat().st_size)))
        with pytest.raises(InvalidDatasetError, match="as they were saved"):
            TransitionDataset.load(tmp_path / "set")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Expected to write 2 transitions to"):
        TransitionDataset(episode("a", 2)).save(tmp_path / "file" / "set")


def test_a_newer_version_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(transitions, "_VERSION", 2)
        TransitionDataset(episode("a", 2)).save(tmp_path / "set")
    with pytest.raises(InvalidDatasetError, match=r"Expected transitions of version 1 or earlier .* version 2"):
        TransitionDataset.load(tmp_path / "set")


@pytest.mark.parametrize("content", ["[]", "{}", '{"version": "2"}', '{"version": null}', '{"version": -1}'])
def test_a_version_of_another_form_is_damage(tmp_path, content):
    TransitionDataset(episode("a", 2)).save(tmp_path / "set")
    (tmp_path / "set" / "format.json").write_text(content)
    seal(tmp_path / "set", "format.json")
    with pytest.raises(InvalidDatasetError, match="Expected the version of the transitions in"):
        TransitionDataset.load(tmp_path / "set")


@pytest.mark.parametrize("hashes", ["", "null", "[]", "{}", '{"state.json": 1}', '{"no": ""}', '{"..": ""}'])
def test_hashes_of_another_form_are_damage(tmp_path, hashes):
    TransitionDataset(episode("a", 2)).save(tmp_path / "set")
    (tmp_path / "set" / "hashes.json").write_text(hashes)
    with pytest.raises(InvalidDatasetError, match="as they were saved"):
        TransitionDataset.load(tmp_path / "set")


def test_further_columns_of_other_tools_are_left_out(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = TransitionDataset(episode("a", 2))
    data.save(tmp_path / "ours")
    rows = [{**row, "further": 3} for row in datasets.load_from_disk(str(tmp_path / "ours")).to_list()]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "theirs"))
    assert TransitionDataset.load(tmp_path / "theirs") == data


def test_a_missing_library_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (TransitionDataset([]).save, TransitionDataset.load):
        with pytest.raises(DependencyNotInstalled, match=r'pip install -e ".*\[train\]"'):
            call(tmp_path / "set")


def test_memory_needs_no_datasets():
    code = (
        "import sys; from rwml_gym.transitions import *;"
        "TransitionDataset([Transition((Turn('', 'a'),), 'b', 'c', game=g) for g in 'xy']).split_by_game(.5);"
        "assert not {'datasets', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("go to fridge 1", "go"),
        ("  Look\n", "look"),
        ("get_user_details(user_id='x')", "get_user_details"),
        ('cancel_order {"id": 1}', "cancel_order"),
        (json.dumps({"name": "get_order", "arguments": {"name": "x"}}), "get_order"),
        ('<tool_call>{"name": "get_order"}</tool_call>', "get_order"),
        ("öffne die Tür", "öffne"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_action_types(action, kind):
    assert action_type(action) == kind


@pytest.mark.parametrize("column", ["action", "next_state", "task", "role", "episode", "invalid_action", "history"])
def test_null_is_no_value_of_a_field(tmp_path, column):
    from datasets import Dataset

    whole = Transition((Turn("", "a room"),), "look", "a room", role="tool")
    TransitionDataset([whole, whole]).save(tmp_path / "whole")
    stored = Dataset.load_from_disk(str(tmp_path / "whole"))
    rows = stored.to_list()
    rows[1][column] = None
    Dataset.from_list(rows, features=stored.features).save_to_disk(str(tmp_path / "null"))
    with pytest.raises(InvalidDatasetError):
        TransitionDataset.load(tmp_path / "null")
