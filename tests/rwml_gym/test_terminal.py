"""What files, environments and models wrote cannot control the terminal."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.terminal import say
from rwml_gym.text import printable
from tests.helpers.command_line import run
from tests.helpers.paths import ROOT

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x08\x9b31m\u202e\ud800"


@given(st.text())
def test_only_line_breaks_and_tabs_are_left(text):
    cleaned = printable(text)
    assert all(character.isprintable() or character in "\n\t" for character in cleaned)
    if all(character.isprintable() or character in "\n\t" for character in text):
        assert cleaned == text


def test_say_prints_it_escaped(capsys):
    say(f"a{ESCAPES}b\n\tc")
    assert capsys.readouterr().out == "a\\x1b]0;owned\\x07\\x1b[2J\\r\\x08\\x9b31m\\u202e\\ud800b\n\tc\n"


@pytest.mark.parametrize("words", [["--help"], ["baselines", "tau2", "--help"]])
def test_an_encoding_without_our_characters_has_their_codes(words):
    """The second help is printed by tyro."""
    environ = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "rwml_gym.agents.cli.main", *words]
    found = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert b"\\u03c4" in found.stdout, "τ of τ²-bench"


@pytest.mark.long
def test_nothing_else_prints():
    """`tqdm.write` prints, too: it has to be given what is cleaned."""
    found = []
    for path in [path for tree in ("rwml_gym", "wrappers", "agents") for path in (ROOT / tree).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or path == ROOT / "rwml_gym" / "terminal.py":
                continue
            called = ast.unparse(node.func)
            cleaned = bool(node.args) and ast.unparse(node.args[0]).startswith("printable(")
            if (
                called == "print"
                or called in ("sys.stdout.write", "sys.stderr.write")
                or (called == "tqdm.write" and not cleaned)
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("command", ["calibrate", "audit"])
def test_names_of_folders(capsys, tmp_path, command):
    assert run(command, tmp_path / f"a{ESCAPES}b".replace("\ud800", "")) == 2
    printed = "".join(capsys.readouterr())
    assert "\\x1b" in printed
    assert printed.replace("\n", "").isprintable()


def test_actions_in_what_is_rendered():
    env = gymnasium.make("rwml_gym/ToyHouse-v0", render_mode="ansi")
    env.reset(seed=0)
    env.step(f"look{ESCAPES}")
    assert env.render().replace("\n", "").isprintable()
