"""Cards of recorded transitions: what the data is, how it was made, under which licence; and the folder to upload."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rwml_gym.agents.packaged import DATA_LICENCES
from rwml_gym.agents.reports.markup import code, our_name, plain, table
from rwml_gym.checks import require
from rwml_gym.hub import upload
from rwml_gym.installed import commit, version_of
from rwml_gym.transitions import TransitionDataset, action_type, count_games

__all__ = ["push_transitions", "write_shared"]

_TAGS = ["world-model", "reinforcement-learning", "text-games", "rwml-gym"]
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
_TEMPLATE = """---
{header}
---

# {title}

{count} of {env}, recorded with {package}. A transition is what an agent saw, what it did, and what it saw next.
World models learn from it, as in Reinforcement World Model Learning
([arXiv 2602.05842](https://arxiv.org/abs/2602.05842)).

## Made how

{command}

{made}

## What is in it

{counts}

| column | what it is |
| --- | --- |
| history | the last turns before the action, each an action and the observation after it; the last one is the state |
| action | what the player did |
| next_state | the observation that followed |
| task, env_id, game, episode, step | where in which game |
| won | whether the episode was won; null if it was not played to its end |
| invalid_action | whether the environment refused the action |
| data_version | version and hash of the data that the games are made of |
| role, known_info | who speaks in next_state, and what the simulated user knows; empty in games of commands |

Split by game, never by row: the rows of a game share its rooms and objects (`TransitionDataset.split_by_game`).

## Use

{use}

## Licence and limits

{licence}

The actions are those of the player named above, so situations that it does not reach are missing. Texts are those of a
simulator; in τ²-bench names and orders are invented.
"""


def write_shared(
    transitions: TransitionDataset,
    folder: str | Path,
    title: str,
    repo_id: str,
    command: str,
    made: Mapping[str, str],
) -> Path:
    """Write the folder that is shared: Parquet, and a card in `README.md`.

    Args:
        transitions: The data.
        folder: Where to write.
        title: Heading of the card.
        repo_id: `OWNER/NAME` of the repository it goes to, for the code that loads it.
        command: The command that makes the data again.
        made: How it was made, such as player and seed, by name.

    Returns:
        The folder.
    """
    require("huggingface_hub", "huggingface-hub to share data and models", "train")
    from huggingface_hub import DatasetCard, DatasetCardData

    folder = Path(folder)
    transitions.export(folder)
    env_ids = sorted({t.env_id for t in transitions})
    known = [DATA_LICENCES[name] for name in DATA_LICENCES if any(env.startswith(name) for env in env_ids)]
    header = DatasetCardData(
        license=known[0][0] if len(known) == 1 else None,
        language=["en"] if known else None,
        pretty_name=plain(title),
        tags=_TAGS,
        task_categories=["text-generation", "reinforcement-learning"],
        size_categories=[next((name for size, name in _SIZES.items() if len(transitions) < size), "n>1M")],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}],
    )
    types = Counter(action_type(t.action) for t in transitions)
    won = {(t.game, t.episode): t.won for t in transitions}
    counts = {
        "transitions": str(len(transitions)),
        "games": str(len(transitions.games)),
        "episodes": str(len(won)),
        "episodes won": str(sum(bool(each) for each in won.values())),
        "invalid actions": str(sum(t.invalid_action for t in transitions)),
        **{f"action {name}": str(count) for name, count in types.most_common(12)},
    }
    package = " ".join(filter(None, [f"rwml-gym {version_of('rwml-gym')}", commit() and f"({commit()})"]))
    versions = {
        "data": ", ".join(sorted({t.data_version for t in transitions} - {""})) or "-",
        "made with": f"{package}, Python {platform.python_version()}",
    }
    text = _TEMPLATE.format(
        header=header.to_yaml(),
        title=plain(title),
        count=f"{len(transitions)} transitions of {count_games(transitions)}",
        env=", ".join(map(plain, env_ids)),
        package=our_name(),
        command=code(" ".join(command.split()), "sh"),
        made=table("how", {**made, **versions}),
        counts=table("count", counts),
        use=code(_use(repo_id), "python"),
        licence=" ".join(note for _, note in known) or "No licence is known here: it is that of the environment.",
    )
    DatasetCard(text).save(folder / "README.md")
    return folder


def push_transitions(folder: str | Path, repo_id: str, private: bool = True) -> str:
    """Upload what `write_shared` wrote to a data set on the hub, and return its address; errors as of `hub.upload`."""
    return upload(Path(folder), repo_id, "dataset", "transitions with their card", private)


def _use(repo_id: str) -> str:
    return f"""from datasets import load_dataset

rows = load_dataset({repo_id!r}, split="train")

# or, with rwml-gym
from rwml_gym.transitions import TransitionDataset

transitions = TransitionDataset.from_hub({repo_id!r})"""
