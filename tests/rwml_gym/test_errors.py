"""Messages of errors: a sentence that quotes another error's message ends in one full stop."""

from __future__ import annotations

import pytest

from rwml_gym.errors import GameNotFoundError, InvalidConfigError, RWMLGymError


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Expected a file, actual: it ended early.. Save it again.",
            "Expected a file, actual: it ended early. Save it again.",
        ),
        ("Cannot read it: no room..", "Cannot read it: no room."),
        ("Expected more ... of it.", "Expected more ... of it."),
        ("Expected a folder below '..' or in .. beside it.", "Expected a folder below '..' or in .. beside it."),
        ("a\nb..\nc", "a\nb.\nc"),
    ],
)
@pytest.mark.parametrize("kind", [RWMLGymError, InvalidConfigError, GameNotFoundError])
def test_a_quoted_message_leaves_one_full_stop(kind, message, expected):
    assert str(kind(message)) == expected
