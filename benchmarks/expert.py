"""How many games experts win within 50 steps: ours, and the hand-coded one of alfworld with and without its mistake.

    python benchmarks/expert.py --data FOLDER

FOLDER holds the official splits `valid_seen` and `valid_train`; generated games need none. The expert looks where the
recorded games of `valid_train` have such things, so of the official splits `valid_seen` is the fair one; as official
games go, its rooms are those of the training set.

alfworld's own expert plays `valid_seen` in the installed grammar only, the one that it is written for, driven as
`AlfredExpert` of alfworld does it: it says `look` first, and wherever its advice is not admissible. It never notices
`move X to Y`, so it loses track of what it holds; "mended" reads `put` for `move` there. The facts it asks for come
from our engine, which keeps those of textworld. What it draws from the global random generator is seeded for each game.

Columns: games won within 50 steps, mean steps of these, mean steps of all games (50 where it does not win), and
microseconds for one piece of advice, engine left out.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rwml_gym.envs.alfworld.engine.engine import Engine, State
from rwml_gym.envs.alfworld.engine.game import Game
from rwml_gym.envs.alfworld.expert import Expert
from rwml_gym.envs.alfworld.games.sources import make_games

LIMIT = 50
FACTS = ("holds", "inreceptacle", "ishot", "iscool", "isclean")
"""The facts that alfworld's expert asks for."""


class Advisor(Protocol):
    """Gives advice in every state of a game."""

    def act(self, observation: str, admissible: list[str]) -> str:
        """An admissible action."""
        ...


class Fact(NamedTuple):
    """A fact as textworld has it."""

    name: str
    names: list[str]


class AlfworldExpert:
    """The hand-coded expert of alfworld, driven as alfworld drives it."""

    def __init__(self, game: Game, engine: Engine, mended: bool) -> None:
        from alfworld.agents.expert import HandCodedTWAgent

        assert game.path is not None
        random.seed(game.name)
        self._engine = engine
        self._agent = HandCodedTWAgent(max_steps=200)
        self._agent.reset(game.path)
        if mended:
            track = self._agent.policy.update_state_tracking
            self._agent.policy.update_state_tracking = lambda state, last: track(state, _put_for_move(last))
        self._last = ""

    def act(self, observation: str, admissible: list[str]) -> str:
        """What it would do; `look` where that is not admissible."""
        if not self._last:
            self._agent.observe(observation)
            self._last = "look"
            return self._last
        state = {"feedback": observation, "admissible_commands": admissible, "facts": self._facts()}
        action = self._agent.act(state, 0, False, self._last)
        self._last = action if action in admissible else "look"
        return self._last

    def _facts(self) -> list[Fact]:
        names = self._engine.names
        return [Fact(fact, [names[i] for i in row]) for fact in FACTS for row in self._engine.facts.get(fact, ())]


def _put_for_move(command: str) -> str:
    return f"put{command.removeprefix('move')}" if command.startswith("move ") else command


def ours(game: Game, engine: Engine) -> Advisor:
    """Our expert, seeded as the environment does."""
    assert game.goal is not None
    return Expert(game.goal, seed=game.name)


def alfworlds(game: Game, engine: Engine) -> Advisor:
    """The expert of alfworld as it is."""
    return AlfworldExpert(game, engine, mended=False)


def alfworlds_mended(game: Game, engine: Engine) -> Advisor:
    """The expert of alfworld, except that it notices `move`."""
    return AlfworldExpert(game, engine, mended=True)


def play(game: Game, make: Callable[[Game, Engine], Advisor]) -> tuple[bool, int, float]:
    """Plays one game.

    Returns:
        Whether it was won, in how many steps, and how many seconds the advice took.
    """
    engine = Engine()
    state: State = engine.start(game.data)
    advisor = make(game, engine)
    steps, seconds = 0, 0.0
    while not state.won and steps < LIMIT:
        start = time.perf_counter()
        action = advisor.act(state.text, state.admissible)
        seconds += time.perf_counter() - start
        state = engine.step(action)
        steps += 1
    return state.won, steps, seconds


def report(title: str, games: Iterable[Game], make: Callable[[Game, Engine], Advisor]) -> None:
    """Prints one row."""
    plays = [play(game, make) for game in games]
    won = [steps for is_won, steps, _ in plays if is_won]
    steps = sum(steps for _, steps, _ in plays)
    micros = 1e6 * sum(seconds for *_, seconds in plays) / steps
    print(
        f"{title:52}{len(won):4} of {len(plays):3}{sum(won) / len(won):10.1f}{steps / len(plays):10.1f}{micros:10.0f}",
        flush=True,
    )


def games_of(split: str, number: int | None = None, **arguments: Any) -> Iterable[Game]:
    """Loads the games of a split one by one."""
    source = make_games(split, **arguments)
    return (source.load(name) for name in source.names[:number])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of official games")
    parser.add_argument("--generated", type=int, default=300, help="how many generated games")
    arguments = parser.parse_args()
    print(f"{'':52}{'won':>11}{'steps won':>10}{'steps all':>10}{'µs':>10}")
    for split in ("valid_seen", "valid_train"):
        for grammar in ("installed", "original"):
            games = games_of(split, data=arguments.data, grammar=grammar)
            report(f"ours, {split}, {grammar} grammar", games, ours)
    for split in ("generated", "generated_held_out"):
        report(f"ours, {split}", games_of(split, arguments.generated), ours)
    for title, make in {"alfworld's": alfworlds, "alfworld's, mended": alfworlds_mended}.items():
        games = games_of("valid_seen", data=arguments.data)
        report(f"{title}, valid_seen, installed grammar", games, make)


if __name__ == "__main__":
    main()
