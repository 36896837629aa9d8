"""The command line as tests call it."""

from __future__ import annotations

import pytest

from rwml_gym.agents.cli import main as cli


def run(*words: object) -> int:
    """Exit status, also where the parser exits by itself."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as error:
        return int(error.code or 0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed since the last call, in one line without the parser's frames."""
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return " ".join((out + err).replace("│", " ").split())
