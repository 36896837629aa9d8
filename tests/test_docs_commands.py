"""The shell blocks of the pages name commands, options, files, targets and extras that exist."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields

import pytest

from rwml_gym.agents.cli import main as cli
from tests.helpers.paths import ROOT
from tests.test_docs import NAMES, PAGES, blocks

# Programs of others, whose words are not read.
OTHERS = {"accelerate", "export", "inspect", "vf-eval", "vllm"}
MODULE = "rwml_gym.agents.cli.main"


def _commands(block: str) -> Iterator[list[str]]:
    """The words of each command, without variables before it."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words:
            yield words


@functools.cache
def _options(command: str) -> frozenset[str]:
    """The options of a command of ours, from its help."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1000")
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            cli.main([*command.split(), "--help"])
    found = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", out.getvalue()))
    if command.startswith("train "):  # read before the options of the help
        from rwml_gym.agents.cli.train import Start

        found |= {"--" + field.name.replace("_", "-") for field in fields(Start)}
    return frozenset(found)


def _wrong(words: list[str]) -> list[str]:
    """What a command names and is not there."""
    program, rest = words[0], words[1:]
    if MODULE in rest:
        program, rest = "rwml-gym", rest[rest.index(MODULE) + 1 :]
    asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if program == "rwml-gym":
        named = [c for c in cli.COMMANDS if rest[: len(c.split())] == c.split()]
        return sorted(asked - _options(named[0])) if named else [" ".join(rest[:2])]
    if program == "python":
        file = ROOT / rest[0]
        return sorted(o for o in asked if f'"{o}"' not in file.read_text("utf-8")) if file.is_file() else [rest[0]]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        return [word for word in rest if "=" not in word and word not in targets]
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        return [e for names in re.findall(r"\[(.*?)\]", " ".join(rest)) for e in names.split(",") if e not in extras]
    return [] if program in OTHERS else [program]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_shell_blocks_name_what_is_there(page):
    pytest.importorskip("peft", reason="needs the extra train")
    shell = [block for language, block in blocks(page.read_text("utf-8")) if language == "sh"]
    assert not {" ".join(words): wrong for block in shell for words in _commands(block) if (wrong := _wrong(words))}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("rwml-gym record --env toy --games 3 --out data/toy", []),
        ("rwml-gym record --enw toy", ["--enw"]),
        ("rwml-gym rekord", ["rekord"]),
        ("python examples/gym_loop.py --episodes 2", []),
        ("python examples/gym_loop.py --no-such-option", ["--no-such-option"]),
        ("python examples/gone.py", ["examples/gone.py"]),
        ("make demo RUN_DIR=runs/x", []),
        ("make demos", ["demos"]),
        ('pip install -e ".[alfworld,gone]"', ["gone"]),
        ("curl example", ["curl"]),
    ],
)
def test_a_wrong_word_is_seen(command, wrong):
    assert _wrong(shlex.split(command)) == wrong
