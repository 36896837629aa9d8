"""ALFWorld here beside stock ALFWorld: the same games, the same commands, in one run.

    python benchmarks/alfworld_speed.py [--data FOLDER] [--split valid_seen]

Prints, for stock and for this package: steps a second of one environment, the time of a reset and of a first load,
episodes a second on new games (load, reset, 50 random steps) and on games seen before, for one environment and for 16;
steps a second of 16 environments in one process, what each further environment costs, and what 100,000 steps over 500
generated games leave behind. The new games are also played from operators that fast-downward grounds, as this package
did before. Stock is `AlfredInfos(AlfredDemangler(PddlEnv()))`, as alfworld's own environment makes
it; ours is `gymnasium.make`, all wrappers included. Both take turns; times are medians. Without `--data`, games are
generated.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import gymnasium
import textworld
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
from textworld.envs.pddl import PddlEnv

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.envs.alfworld.engine import engine
from rwml_gym.envs.alfworld.engine.lifted import LiftedGame
from rwml_gym.envs.alfworld.engine.pddl import UnsupportedPDDL
from rwml_gym.envs.alfworld.games.sources import make_games

ID = "rwml_gym/ALFWorld-v0"
BATCH, FURTHER_STOCK, FURTHER = 16, 4, 64
STEPS, GAMES = 100_000, 500
Arguments = dict[str, Any]


def stock_env() -> Any:
    """An environment as alfworld makes it."""
    infos = textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"])
    return AlfredInfos(AlfredDemangler(PddlEnv(infos)))


def seconds(work: Callable[..., Any], *arguments: Any, **keywords: Any) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work(*arguments, **keywords)
    return time.perf_counter() - began


def resident() -> float:
    """Memory of this process in MB."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def unlinked() -> float:
    """Disk that this process holds in deleted files it has mapped, in MB."""
    sizes: dict[str, int] = {}
    with open("/proc/self/maps", encoding="utf-8") as file:
        for line in file:
            match = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+) +(\S+) \(deleted\)", line)
            if match and match[1] not in sizes:
                sizes[match[1]] = os.stat(f"/proc/self/map_files/{line.split()[0]}").st_size
    return sum(sizes.values()) / 1e6


def handles() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))


def start_stock(env: Any, data: Any) -> None:
    """Loads and starts a game."""
    env.load(data)
    env.reset()


def play_stock(env: Any, steps: int, rng: random.Random) -> None:
    """Random admissible commands."""
    state = env.reset()
    for _ in range(steps):
        state, _, _ = env.step(rng.choice(state["admissible_commands"]))


def play(env: Any, steps: int, rng: random.Random, options: Arguments | None = None) -> None:
    """The same through Gymnasium, starting again where an episode ends."""
    _, info = env.reset(options=options)
    for _ in range(steps):
        _, _, terminated, truncated, info = env.step(rng.choice(info["admissible_actions"]))
        if terminated or truncated:
            _, info = env.reset(options=options)


def play_batch(envs: Any, steps: int, rng: random.Random) -> None:
    """Random admissible commands in every slot."""
    _, infos = envs.reset(seed=0)
    for _ in range(steps):
        _, _, _, _, infos = envs.step([rng.choice(actions) for actions in infos["admissible_actions"]])


def row(what: str, stock: str, ours: str, ratio: float | None, target: str) -> None:
    """Prints one line of the table."""
    print(f"{what:<52} {stock:>14} {ours:>16} {'' if ratio is None else f'{ratio:,.0f} x':>9}  {target}", flush=True)


def one_environment(arguments: Arguments, names: list[str]) -> None:
    """Steps, resets and first loads, stock and ours in turn."""
    games = make_games(**arguments)
    stock, ours = stock_env(), gymnasium.make(ID, **arguments)
    times: dict[str, list[float]] = {what: [] for what in ("step", "reset", "load")}
    stock_times: dict[str, list[float]] = {what: [] for what in times}
    for number, name in enumerate(names):
        options = {"game": name}
        data = games.load(name).data
        stock_times["load"].append(seconds(start_stock, stock, data))
        stock_times["reset"].append(seconds(stock.reset))
        taken = seconds(play_stock, stock, 20, random.Random(number))
        stock_times["step"].append((taken - stock_times["reset"][-1]) / 20)

        engine._games.clear()
        times["load"].append(seconds(ours.reset, options=options))
        times["reset"].append(statistics.median(seconds(ours.reset, options=options) for _ in range(9)))
        taken = seconds(play, ours, 20, random.Random(number), options)
        times["step"].append((taken - times["reset"][-1]) / 20)
    old, new = ({what: statistics.median(v) for what, v in kind.items()} for kind in (stock_times, times))
    row(
        "step with admissible actions, one env",
        f"{1 / old['step']:.0f} /s",
        f"{1 / new['step']:,.0f} /s",
        old["step"] / new["step"],
        "2,000 /s",
    )
    for what, label, target in (
        ("reset", "reset of a game seen before", "5 ms"),
        ("load", "first load", "5 ms"),
    ):
        row(label, f"{old[what] * 1e3:.0f} ms", f"{new[what] * 1e3:.2f} ms", old[what] / new[what], target)
    ours.close()


class _NotLifted(LiftedGame):
    """Leaves every game to fast-downward."""

    def __init__(self, *arguments: Any) -> None:
        raise UnsupportedPDDL("as asked")


def episode(env: Any, options: Arguments | None, rng: random.Random) -> float:
    """Seconds of a reset and up to 50 random steps."""
    began = time.perf_counter()
    _, info = env.reset(options=options)
    for _ in range(50):
        _, _, terminated, truncated, info = env.step(rng.choice(info["admissible_actions"]))
        if terminated or truncated:
            break
    return time.perf_counter() - began


def new_games(arguments: Arguments, names: list[str]) -> None:
    """Episodes on new games and on seen ones: stock, from fast-downward's operators, and here, in turn."""
    games = make_games(**arguments)
    stock, env = stock_env(), gymnasium.make(ID, **arguments)
    times: dict[str, list[float]] = {what: [] for what in ("stock", "grounded", "new", "reset", "seen")}
    env.reset(options={"game": names[0]})
    for number, name in enumerate(names):
        options, rng = {"game": name}, random.Random(number)
        if number < 3:
            began = time.perf_counter()
            stock.load(games.load(name).data)
            play_stock(stock, 50, rng)
            times["stock"].append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, RWML_GYM_CACHE=cache):
            with mock.patch.object(engine, "LiftedGame", _NotLifted):
                engine._games.clear()
                times["grounded"].append(episode(env, options, random.Random(number)))
            engine._games.clear()
            times["new"].append(episode(env, options, random.Random(number)))
            times["seen"].append(episode(env, options, random.Random(number)))
            engine._games.clear()
            times["reset"].append(seconds(env.reset, options=options))
    env.close()
    old, new, seen, grounded = (statistics.median(times[what]) for what in ("stock", "new", "seen", "grounded"))
    ratio = statistics.median(before / now for before, now in zip(times["grounded"], times["new"], strict=True))
    row("episode on a new game, one env", f"{old:.2f} s", f"{new * 1e3:.1f} ms", old / new, "")
    row(
        "… from operators of fast-downward, as before", f"{grounded * 1e3:.0f} ms", f"{new * 1e3:.1f} ms", ratio, "25 x"
    )
    row("… on a game seen before", "-", f"{seen * 1e3:.1f} ms", None, "")
    row("reset to a new game", "-", f"{statistics.median(times['reset']) * 1e3:.1f} ms", None, "5 ms")

    envs = gymnasium.make_vec(ID, num_envs=BATCH, **arguments)
    turns: dict[str, list[float]] = {"new": [], "seen": []}
    for turn in range(6):
        for what in turns:
            engine._games.clear() if what == "new" else None
            began = time.perf_counter()
            _, infos = envs.reset(seed=1000 * turn)
            rng = random.Random(turn)
            for _ in range(49):
                _, _, _, _, infos = envs.step([rng.choice(actions) for actions in infos["admissible_actions"]])
            turns[what].append((time.perf_counter() - began) / BATCH)
    envs.close()
    one, other = (statistics.median(turns[what]) for what in ("new", "seen"))
    row(f"episodes on new games, {BATCH} envs, each", "-", f"{one * 1e3:.1f} ms", None, "")
    row("… on games seen before", "-", f"{other * 1e3:.1f} ms", None, "")


def many_environments(arguments: Arguments) -> None:
    """A batch in one process, and what each further environment costs."""
    games = make_games(**arguments)
    names = games.names[:: max(1, min(len(games.names), 10_000) // FURTHER)][:FURTHER]
    envs = gymnasium.make_vec(ID, num_envs=BATCH, **arguments)
    before, disk_before = resident(), unlinked()
    stock = [stock_env() for _ in range(FURTHER_STOCK)]
    for env, name in zip(stock, names, strict=False):
        start_stock(env, games.load(name).data)
    memory_stock = (resident() - before) / FURTHER_STOCK
    disk_stock = (unlinked() - disk_before) / FURTHER_STOCK
    turns_stock, turns = [], []
    play_batch(envs, 60, random.Random(0))
    for turn in range(3):
        rng = random.Random(turn)
        states = [env.reset() for env in stock]
        began = time.perf_counter()
        for _ in range(5):
            states = [
                env.step(rng.choice(state["admissible_commands"]))[0] for env, state in zip(stock, states, strict=True)
            ]
        turns_stock.append((time.perf_counter() - began) / (5 * len(stock)))
        turns.append(seconds(play_batch, envs, 300, rng) / (300 * BATCH))
    envs.close()
    old, new = statistics.median(turns_stock), statistics.median(turns)
    row(
        f"{BATCH} envs in one process (stock: {FURTHER_STOCK})",
        f"{1 / old:.0f} /s",
        f"{1 / new:,.0f} /s",
        old / new,
        "2,000 /s",
    )

    before, disk_before = resident(), unlinked()
    further = [gymnasium.make(ID, **arguments) for _ in range(FURTHER)]
    for env, name in zip(further, names, strict=True):
        play(env, 49, random.Random(0), {"game": name})
    memory, disk = (resident() - before) / FURTHER, (unlinked() - disk_before) / FURTHER
    row(
        "memory for each further env, each its own game",
        f"{memory_stock:.2f} MB",
        f"{memory:.2f} MB",
        memory_stock / memory,
        "under 1 MB",
    )
    row("disk for each further env", f"{disk_stock:.0f} MB", f"{disk:.0f} MB", None, "none")
    for env in further:
        env.close()


def endurance(arguments: Arguments, steps: int, number: int) -> None:
    """What many steps over many games leave behind; in a process of its own, which has done nothing else."""
    names = list(make_games(**arguments).names[:number])
    env = gymnasium.make(ID, **arguments)
    play(env, 10, random.Random(0), {"game": names[0]})
    before, open_before = resident(), handles()
    began = time.perf_counter()
    for turn in range(steps // 50):
        play(env, 49, random.Random(turn), {"game": names[turn % len(names)]})
    taken = time.perf_counter() - began
    row(
        f"{steps:,} steps over {len(names)} games: memory grows",
        "-",
        f"{resident() - before:.0f} MB",
        None,
        f"under 50 MB ({taken:.0f} s, new games included)",
    )
    row("… file handles left", "-", str(handles() - open_before), None, "none")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of official games; generated ones by default")
    parser.add_argument("--split", default=None, help="valid_seen with --data, generated without")
    parser.add_argument("--games", type=int, default=15, help="games to time stock and ours on")
    parser.add_argument("--endurance", action="store_true", help="only the last rows, which are about generated games")
    options = parser.parse_args()
    arguments: Arguments = {"split": options.split or ("valid_seen" if options.data else "generated")}
    if options.data:
        arguments["data"] = options.data
    if options.endurance:
        return endurance(arguments, STEPS, GAMES)
    with tempfile.TemporaryDirectory() as cache:  # so that nothing was cached before
        os.environ["RWML_GYM_CACHE"] = cache
        names = make_games(**arguments).names
        every = max(1, min(len(names), 10_000) // options.games)
        print(f"{options.games} games of {arguments['split']}, medians; further down more games")
        row("", "stock", "ours", None, "at least")
        one_environment(arguments, list(names[::every][: options.games]))
        new_games(arguments, list(names[1::every][: 2 * options.games]))
        many_environments(arguments)
        subprocess.run([sys.executable, __file__, "--endurance"], check=True)


if __name__ == "__main__":
    main()
