"""Export of games to folders that alfworld itself finds and plays.

Each game becomes ``<folder>/<split>/<task type>-<target>-None-<receptacle or lamp>-<floor plan>/trial_…`` with the
three files of official games: ``game.tw-pddl`` (the game, with the plan as its ``walkthrough``), ``initial_state.pddl``
(its PDDL problem) and ``traj_data.json`` (used by alfworld to list games, and by its expert). A generated game has no
images and no low-level actions in it, because it was never simulated.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rwml_gym.envs.alfworld.engine.game import Game, Goal
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_regular

__all__ = ["export_games"]


def export_games(games: Iterable[Game], folder: str | Path, overwrite: bool = False) -> list[Path]:
    """Write games and return their folders; an interrupted export leaves only complete games.

    Args:
        games: Generated or official games.
        folder: Target folder; alfworld's configuration calls the splits in it ``data_path``.
        overwrite: Whether to add to an existing split, and to replace the same games in it.

    Raises:
        InvalidConfigError: If the folder of a split exists or cannot be made, or a game's goal is unknown.
    """
    written: list[Path] = []
    begun = set()
    for game in games:
        target = Path(folder) / _game_folder(game)
        split = target.parent.parent
        if split.exists() and split not in begun and not overwrite:
            raise InvalidConfigError(
                f"Expected a new folder, actual: {split} exists. Export to another folder, or add to this one and "
                "replace the same games in it (`overwrite=True`, on the command line --overwrite)."
            )
        begun.add(split)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfigError(f"Expected a writable folder, actual: {folder} ({error}). Use another.") from error
        _write(game, target, draft=Path(folder) / f".{target.name}-{os.getpid()}")
        written.append(target)
    return written


def _write(game: Game, target: Path, draft: Path) -> None:
    contents = {
        "game.tw-pddl": json.dumps({key: value for key, value in game.data.items() if value is not None}),
        "initial_state.pddl": game.data["pddl_problem"],
        "traj_data.json": json.dumps(_trajectory(game, target.name), indent=2),
    }
    try:
        draft.mkdir()
        for name, text in contents.items():
            (draft / name).write_text(text, encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _game_folder(game: Game) -> Path:
    goal = _goal(game)
    split, *rest = game.name.split("/")
    task = f"{goal.task_type}-{goal.target}-None-{goal.receptacle or goal.lamp}-{game.floor_plan}"
    if rest and rest[-1].startswith("trial_"):
        return Path(split) / task / rest[-1]
    # a generated name without its task type, which the parent folder has
    return Path(split) / task / "_".join(["trial", split, *rest[1:]])


def _goal(game: Game) -> Goal:
    if game.goal is None or game.floor_plan is None:
        raise InvalidConfigError(
            f"Expected the goal and floor plan in the folder name of {game.name}, actual: none. Name the folder as "
            "alfworld does, such as pick_and_place_simple-Mug-None-Shelf-3, or restore its traj_data.json."
        )
    return game.goal


def _trajectory(game: Game, trial: str) -> dict[str, Any]:
    """Return what alfworld reads of a recorded demonstration, and placeholders for the rest."""
    if game.path is not None:
        recorded = Path(game.path).with_name("traj_data.json")
        if recorded.is_file():
            return json.loads(read_regular(recorded))
    goal = _goal(game)
    return {
        "task_id": trial,
        "task_type": game.task_type,
        "pddl_params": {
            "object_target": goal.target,
            "parent_target": goal.receptacle,
            "toggle_target": goal.lamp,
            "mrecep_target": "",
            "object_sliced": False,
        },
        "scene": {"floor_plan": f"FloorPlan{game.floor_plan}", "scene_num": game.floor_plan},
        "turk_annotations": {"anns": [{"task_desc": game.task, "high_descs": list(game.plan or ())}]},
        "plan": {"high_pddl": [], "low_actions": []},
        "images": [],
    }
