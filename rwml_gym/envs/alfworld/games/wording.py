"""The two wordings of ALFWorld: a generated game in the words of the published games, and which game has which.

alfworld has changed its texts since its games were published: `put X in/on Y` became `move X to Y`, an arrival names
the receptacle in place of a location, and a command `help` came. The published domain and grammar are the installed
ones with these changes taken back, so the published words need no download.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from rwml_gym.envs.alfworld.engine.game import Game
from rwml_gym.envs.alfworld.games import package
from rwml_gym.errors import InvalidGameError

__all__ = ["in_original_words", "wording_of"]

_MOVE = re.compile(r"move (\w+ \d+) to (\w+ \d+)")

# In the installed text, how often, and in the published one.
_DOMAIN = (
    (";(receptacleType ?r SinkType)", 1, "(receptacleType ?r SinkType)"),
    (
        "\n(:action help\n    :parameters (?a - agent)\n    :precondition\n        ()\n    :effect\n        (and\n"
        "            (checked ?a)\n        )\n)\n",
        1,
        "",
    ),
)
_GRAMMAR = (
    ("You arrive at {r.name}. ", 1, "You arrive at {lend.name}. "),
    ("You move the {o.name} to the {r.name}.", 1, "You put the {o.name} in/on the {r.name}."),
    ('template :: "move {o} to {r}"', 2, 'template :: "put {o} in/on {r}"'),
)
_HELP = re.compile(r'\n*\naction help \{\n    template :: "help";.*?\n    """;\n\}', re.DOTALL)


def wording_of(name: str, grammar: str) -> str:
    """Return the wording of a game, `installed` or `original`: of `mixed` ones half are in each, by the name's hash.

    Args:
        name: The game's name.
        grammar: One of `arguments.GRAMMARS`.
    """
    if grammar != "mixed":
        return grammar
    return "original" if hashlib.sha256(name.encode(errors="surrogatepass")).digest()[0] % 2 else "installed"


def in_original_words(game: Game) -> Game:
    """Return a generated game in the words, and with the rules, of the published games; its plan wins it as before.

    Raises:
        InvalidGameError: The installed alfworld is not the one whose changes are known.
    """
    grammar, helps = _HELP.subn("", _changed(game.data["grammar"], _GRAMMAR))
    if helps != 1:
        raise _unknown("action help")
    plan = [_MOVE.sub(r"put \1 in/on \2", action) for action in game.plan or ()]
    domain = _changed(game.data["pddl_domain"], _DOMAIN)
    data = {**game.data, "pddl_domain": domain, "grammar": grammar, "walkthrough": plan}
    version = f"{game.data_version}, in the words of json_2.1.1"
    return replace(game, data=data, plan=tuple(plan), data_version=version)


def _changed(text: str, changes: tuple[tuple[str, int, str], ...]) -> str:
    for now, count, then in changes:
        if text.count(now) != count:
            raise _unknown(now)
        text = text.replace(now, then)
    return text


def _unknown(text: str) -> InvalidGameError:
    return InvalidGameError(
        f"Expected alfworld 0.4, whose texts can be put into the published words, actual: {package.version()}, in "
        f"which {text.strip()[:40]!r} is not as often as there. Remove `grammar`, or install alfworld 0.4.2."
    )
