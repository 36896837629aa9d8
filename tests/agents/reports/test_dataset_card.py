"""Shared data can be read by anyone, and its card says what it is and how it was made, whatever is in its values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard, constants
from markdown_it import MarkdownIt

from rwml_gym.agents.reports.dataset_card import push_transitions, write_shared
from rwml_gym.errors import HubError
from rwml_gym.transitions import InvalidDatasetError, Transition, TransitionDataset, Turn
from tests.helpers.command_line import run, said
from tests.helpers.hub import COMMIT, local_hub

ROOM = (Turn("", "You are in a room."),)
DATA = TransitionDataset(
    [
        Transition(ROOM, "go north", "A wall.", "Leave.", "rwml_gym/ALFWorld-v0", "a", 0, 0, None, True, "0.4.2 (abc)"),
        Transition(ROOM, "look", "", "Leave.", "rwml_gym/ALFWorld-v0", "b", 1, 0, True, False, "0.4.2 (abc)"),
    ]
)


def _shared(folder: Path, data: TransitionDataset = DATA, text: str = "Title") -> DatasetCard:
    write_shared(data, folder, text, "me/mine", f"rwml-gym record --split {text}", {"player": text})
    return DatasetCard.load(folder / "README.md")


def test_plain_datasets_reads_what_is_shared(tmp_path):
    _shared(tmp_path / "shared")
    rows = datasets.load_dataset(str(tmp_path / "shared"), split="train")
    assert rows["action"] == ["go north", "look"]
    assert rows[0]["history"] == [{"action": "", "observation": "You are in a room."}]
    assert TransitionDataset.from_hub(str(tmp_path / "shared")) == DATA


def test_the_card_says_what_it_is_and_how_it_was_made(tmp_path):
    card = _shared(tmp_path)
    data = card.data.to_dict()
    assert (data["license"], data["size_categories"]) == ("mit", ["n<1K"])
    html = MarkdownIt("commonmark").enable("table").render(card.text)
    for part in (
        "rwml-gym record --split Title",
        "<td>player</td>\n<td>Title</td>",
        "<td>episodes won</td>\n<td>1</td>",
        "<td>action go</td>\n<td>1</td>",
        "0.4.2 &amp;#40;abc" if "&amp;#40;" in html else "0.4.2 (abc)",
        "ALFWorld (MIT licence)",
        "load_dataset('me/mine'",
    ):
        assert part in html, part


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "---\nlicense: gpl\n---", "{x} | ```", "   "])
def test_no_text_leaves_its_place(tmp_path, text):
    card = _shared(tmp_path, text=text)
    assert card.data.license == "mit"
    assert "<script>" not in MarkdownIt("commonmark").render(card.text)


def test_a_licence_that_is_not_known_is_not_claimed(tmp_path):
    card = _shared(tmp_path, TransitionDataset([Transition(ROOM, "look", "", env_id="mine/Env-v0", game="a")]))
    assert card.data.license is None
    assert "No licence is known" in card.text


def test_an_upload_arrives_whole(tmp_path, monkeypatch):
    _shared(tmp_path / "shared")
    with local_hub(tmp_path / "hub", monkeypatch) as asked:
        assert push_transitions(tmp_path / "shared", "me/mine").endswith("/datasets/me/mine")
    assert "/api/datasets/me/mine/commit/main" in asked
    for name in ("README.md", "data/train.parquet"):
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()


def test_offline_an_upload_says_how_to_do_it_later(tmp_path):
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set.*hf upload me/mine .* --repo-type dataset"):
        push_transitions(tmp_path, "me/mine")


def test_what_is_not_there_names_the_fix(tmp_path):
    with pytest.raises(InvalidDatasetError, match=r"'me/no-such-data'.*hf auth login"):
        TransitionDataset.from_hub("me/no-such-data")


def test_a_recording_is_shared(capsys, tmp_path, monkeypatch):
    words = ["record", "--env", "toy", "--games", 2, "--max-steps", 3, "--push-to-hub", "me/mine"]
    with local_hub(tmp_path / "hub", monkeypatch):
        assert run(*words, "--out", tmp_path / "toy") == 0
    assert "Shared as http://127.0.0.1" in said(capsys)
    assert TransitionDataset.from_hub(str(tmp_path / "hub")) == TransitionDataset.load(tmp_path / "toy")
    card = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert "rwml-gym record --env toy --games 2 --max-steps 3 --out toy" in card
    assert str(tmp_path) not in card


@pytest.mark.long
def test_a_recording_on_a_hub_is_read_by_another_machine(tmp_path, monkeypatch):
    words = ["record", "--env", "toy", "--games", 2, "--max-steps", 3, "--push-to-hub", "me/mine"]
    program = f"""
from rwml_gym.transitions import TransitionDataset
for revision in (None, {COMMIT!r}):
    TransitionDataset.from_hub("me/mine", revision).save({str(tmp_path / "read")!r} + str(revision))
"""
    with local_hub(tmp_path / "hub", monkeypatch) as asked:
        assert run(*words, "--out", tmp_path / "toy") == 0
        # A process of its own, because the libraries read these once; an empty HF_HOME is a machine without the files.
        of_another = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **of_another},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert any(path.endswith(f"/datasets/me/mine/resolve/{COMMIT}/data/train.parquet") for path in asked)
    for revision in (None, COMMIT):
        assert TransitionDataset.load(tmp_path / f"read{revision}") == TransitionDataset.load(tmp_path / "toy")


def test_a_name_that_no_repository_can_have_is_refused_before_recording(capsys, tmp_path):
    assert run("record", "--env", "toy", "--out", tmp_path / "toy", "--push-to-hub", "a/b/c") == 2
    assert "OWNER/NAME" in said(capsys)
    assert not list(tmp_path.iterdir())
