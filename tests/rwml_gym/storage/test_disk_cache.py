"""What is kept on disk is found again, and what is not sound is made anew."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rwml_gym.envs.alfworld.engine import compiled
from rwml_gym.envs.alfworld.engine.grammar import load, without_goal
from rwml_gym.envs.alfworld.engine.text import Texts
from rwml_gym.envs.alfworld.engine.translation import translate
from rwml_gym.envs.alfworld.games.generator import generate
from rwml_gym.storage import disk_cache
from rwml_gym.storage.disk_cache import DiskCache, cache_dir


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RWML_GYM_CACHE", str(tmp_path))
    return tmp_path / "test"


class Maker:
    def __init__(self, value="made"):
        self.value = value
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.value


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path
    monkeypatch.delenv("RWML_GYM_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "rwml_gym"


def test_a_value_is_made_once(folder):
    make = Maker({"texts": ["ü", "\n"], "numbers": [1, 2.5, None]})
    for _ in range(3):
        assert DiskCache("test", 10).get(("a", "b"), make) == make.value
    assert make.calls == 1
    assert len(list(folder.iterdir())) == 1


def test_keys_are_told_apart_by_their_parts():
    cache = DiskCache("test", 10)
    assert cache.get(("ab", "c"), lambda: 1) == 1
    assert cache.get(("a", "bc"), lambda: 2) == 2
    assert cache.get(("abc",), lambda: 3) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: content[:-5] + b"12345",
        lambda content: content.replace(disk_cache.MARK, b"another program\n"),
        lambda content: os.urandom(200),
    ],
)
def test_a_damaged_file_is_rebuilt(folder, damage):
    make = Maker()
    cache = DiskCache("test", 10)
    cache.get(("key",), make)
    (file,) = folder.iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert cache.get(("key",), make) == "made"
    assert make.calls == 2
    assert file.read_bytes() == sound
    cache.get(("key",), make)
    assert make.calls == 2


def test_a_file_under_the_name_of_another_is_rebuilt(folder):
    cache = DiskCache("test", 10)
    cache.get(("a",), Maker("of a"))
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.unlink()
    cache.get(("b",), Maker("of b"))
    (other,) = folder.iterdir()
    other.write_bytes(content)
    assert cache.get(("b",), Maker("of b")) == "of b"


def test_what_cannot_be_used_is_rebuilt():
    cache = DiskCache("test", 10)
    cache.get(("key",), Maker([]))  # such as from a faulty version
    make = Maker({"texts": 3})
    for _ in range(2):
        assert cache.get(("key",), make, lambda value: value["texts"]) == 3
    assert make.calls == 1
    with pytest.raises(KeyError):
        cache.get(("key",), make, lambda value: value["numbers"])


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("RWML_GYM_CACHE")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    make = Maker()
    for _ in range(2):
        assert DiskCache("test", 10).get(("key",), make) == "made"
    assert make.calls == 2


@pytest.mark.parametrize("part", ["FORMAT", "version"])
def test_a_translation_is_made_anew_for_another_format_and_library(monkeypatch, part):
    pytest.importorskip("alfworld")
    game = generate("generated/pick_and_place_simple/7", "pick_and_place_simple").data
    shared, goal = without_goal(game["grammar"])
    arguments = game["pddl_domain"], game["pddl_problem"], Texts(load(shared)), goal
    asked = []
    monkeypatch.setattr(compiled, "translate", lambda *texts: asked.append(texts) or translate(*texts))
    for times, value in ((1, "a"), (1, "a"), (2, "b")):
        monkeypatch.setattr(compiled, part, value if part == "FORMAT" else lambda library, value=value: value)
        compiled.compile_game(*arguments)
        assert len(asked) == times


def test_a_maker_that_fails_leaves_nothing(folder):
    def fail():
        raise OSError("no PDDL")

    cache = DiskCache("test", 10)
    with pytest.raises(OSError, match="no PDDL"):
        cache.get(("key",), fail)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_no_error(folder):
    folder.write_text("a file where the folder should be")
    make = Maker()
    assert DiskCache("test", 10).get(("key",), make) == "made"
    assert DiskCache("test", 10).get(("key",), make) == "made"
    assert make.calls == 2


def test_the_files_longest_unused_go_first(folder, monkeypatch):
    monkeypatch.setattr(disk_cache, "TIDY_EVERY", 2)
    cache = DiskCache("test", files=3)
    for number in range(6):
        cache.get((str(number),), Maker(number))
        for age, file in enumerate(sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)):
            os.utime(file, (1e9 + age, 1e9 + age))
    assert len(list(folder.iterdir())) <= 4
    newest = Maker("again")
    assert cache.get(("5",), newest) == 5
    oldest = Maker("again")
    assert cache.get(("0",), oldest) == "again"


def _get_many(_):
    made = []
    for number in range(20):
        DiskCache("test", 100).get((str(number),), lambda number=number: made.append(number) or "x" * 50_000)
    return len(made)


def test_processes_share_it(folder):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        made = sum(pool.map(_get_many, range(4)))
    assert 20 <= made <= 80
    files = list(folder.iterdir())
    assert len(files) == 20
    assert all(file.suffix == ".z" for file in files)
    never = Maker()
    assert {DiskCache("test", 100).get((str(n),), never) for n in range(20)} == {"x" * 50_000}
    assert never.calls == 0


@pytest.mark.long
@pytest.mark.parametrize("foreign", [False, True])
def test_fast_downward_translates_only_what_is_not_read_and_only_once(tmp_path, foreign):
    """alfworld's own domain is played as it is; the same in words that are not read is translated, and kept on disk."""
    pytest.importorskip("alfworld")
    script = (
        "import json, sys\n"
        "from rwml_gym.envs.alfworld.engine.engine import Engine\n"
        "from rwml_gym.envs.alfworld.games.generator import generate\n"
        "data = generate('generated/pick_and_place_simple/7', 'pick_and_place_simple').data\n"
        "words = '(or (not (openable ?r)) (opened ?r))', '(imply (openable ?r) (opened ?r))'\n"
        f"domain = data['pddl_domain'].replace(*words) if {foreign} else data['pddl_domain']\n"
        "state = Engine().start({**data, 'pddl_domain': domain})\n"
        "imported = sorted({'textworld', 'fast_downward'} & set(sys.modules))\n"
        "print(json.dumps([state.text, state.admissible, imported]))"
    )
    environment = {**os.environ, "RWML_GYM_CACHE": str(tmp_path)}
    outputs = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(json.loads(run.stdout))
    (text, admissible, first), (text_again, admissible_again, second) = outputs
    assert (text, admissible) == (text_again, admissible_again)
    assert first == (["fast_downward"] if foreign else [])
    assert second == []
