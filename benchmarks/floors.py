"""What agents without a model win on whole splits: the floor that stands beside every score of `rwml-gym evaluate`.

    python benchmarks/floors.py [--data JSON_FOLDER] [--write]

Prints how many games random, task-words and expert agents win on ALFWorld's generated and official splits, and how many
tasks of τ²-bench random calls, a goodbye at once (no-op) and a transfer at once win. `--write` puts the numbers into
`agents/evaluation/floors.json`. Splits whose games are not there are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.errors import GameNotFoundError

TABLE = Path(__file__).parents[1] / "agents" / "evaluation" / "floors.json"
GAMES = ("random", "task-words", "expert")
SERVICE = ("no-op", "transfer", "random-caller")


def plans(data: str | None) -> list[tuple[str, EvaluateConfig]]:
    """Return the agents and splits."""
    found = []
    for split in ("generated_held_out", "valid_seen", "valid_unseen"):
        folder = data if split.startswith("valid") else None
        found += [(agent, EvaluateConfig(agent=agent, split=split, data=folder)) for agent in GAMES]
    for domain in ("airline", "retail", "telecom"):
        for split in ("base", "test"):
            found += [(agent, EvaluateConfig("tau2", agent=agent, domain=domain, split=split)) for agent in SERVICE]
    return found


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of official ALFWorld games; $ALFWORLD_DATA if absent")
    parser.add_argument("--write", action="store_true", help="write agents/evaluation/floors.json")
    options = parser.parse_args()
    table: dict[str, dict[str, tuple[int, int]]] = {}
    for agent, config in plans(options.data):
        name = " ".join(filter(None, (config.env, config.split, config.domain)))
        try:
            episodes = evaluate(config).episodes
        except GameNotFoundError:
            print(f"{name:<32} {agent:<16} no games")
            continue
        won = sum(episode.won for episode in episodes)
        table.setdefault(name, {})[agent] = (won, len(episodes))
        print(f"{name:<32} {agent:<16} {won}/{len(episodes)}")
    if options.write:
        TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
