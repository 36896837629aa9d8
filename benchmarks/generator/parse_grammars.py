"""Parses the two text grammars of ALFWorld, so that a first game need not wait two seconds for textworld's parser.

    python benchmarks/generator/parse_grammars.py --data FOLDER

FOLDER holds official games, as `alfworld-download` leaves them: the older grammar is from one of them, the newer one
from the installed alfworld. The result goes to `rwml_gym/envs/alfworld/engine/grammars.json`; a test compares it with
what the parser says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rwml_gym.envs.alfworld.engine.grammar import parse, without_goal
from rwml_gym.envs.alfworld.games.generator import generate
from rwml_gym.envs.alfworld.games.sources import OfficialGames
from rwml_gym.storage.disk_cache import content_hash

FILE = Path(__file__).resolve().parents[2] / "rwml_gym" / "envs" / "alfworld" / "engine" / "grammars.json"
ABOUT = "Parsed from alfworld's text grammars by benchmarks/generator/parse_grammars.py; not for editing."


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of official games")
    parser.add_argument("--split", default="valid_seen")
    options = parser.parse_args()
    games = OfficialGames(options.data, options.split, grammar="original")
    grammars = [
        without_goal(game.data["grammar"])[0]
        for game in (generate("any name", "pick_and_place_simple"), games.load(games.names[0]))
    ]
    parsed = {content_hash(grammar): parse(grammar) for grammar in grammars}
    FILE.write_text(json.dumps({"about": ABOUT, **parsed}, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(parsed)} grammars")


if __name__ == "__main__":
    main()
