"""τ²-bench here beside tau2's own gym: the same tasks, the same actions, the same scripted user, in one run.

    python benchmarks/tau2_speed.py [--tasks 5]

Prints, for `AgentGymEnv` and for this package and each domain: the time of a reset, of a step (gold actions and words),
of the last step, which is the one that scores, the memory of each further environment, and what abandoned episodes
leave behind. Both sides take turns; times are medians. That rewards are the same is checked on the way.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import threading
import time
import warnings
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import gymnasium

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.envs.tau2.domains import load_domain, load_task
from rwml_gym.envs.tau2.env import Tau2Env
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.tasks import Tasks
from rwml_gym.envs.tau2.users import ScriptedUser

TARGETS = {
    "reset": {"airline": "1 ms", "retail": "1 ms", "telecom": "20 ms"},
    "step": {"airline": "0.5 ms", "retail": "0.5 ms", "telecom": "0.5 ms"},
    "scoring": {"airline": "5 ms", "retail": "5 ms", "telecom": "15 ms"},
}
ABANDONED, FURTHER, FURTHER_STOCK = 1000, 200, 4


def stock_env(domain: str, task_id: str) -> Any:
    """tau2's own environment, whose user is our scripted one."""
    gym_agent = load("gym.gym_agent")
    base, state = load("user.user_simulator").UserSimulator, load("user.base").UserState

    class Scripted(base):  # type: ignore[misc, valid-type]
        """Our user as tau2 takes one."""

        def get_init_state(self, message_history: Any = None) -> Any:
            self.ours = ScriptedUser(load_task(domain, task_id), load_domain(domain).user_tools)
            self.ours.begin(list(message_history or []))
            return state(system_messages=[], messages=[])

        def generate_next_message(self, message: Any, told: Any) -> Any:
            return self.ours.reply(getattr(message, "tool_messages", [message])), told

    class Stock(gym_agent.AgentGymEnv):  # type: ignore[name-defined]
        """tau2's environment with this user."""

        def _get_user(self) -> Any:
            return Scripted(instructions=self._get_task().user_scenario)

    return Stock(domain, task_id)


def gold(domain: str, task_id: str) -> list[str]:
    """What an agent says that follows the gold actions."""
    criteria = load_task(domain, task_id).evaluation_criteria
    said = []
    for action in criteria.actions or []:
        call = f"{action.name}({', '.join(f'{key}={value!r}' for key, value in action.arguments.items())})"
        said.append(f"Please run {call} for me." if action.requestor == "user" else call)
    if criteria.communicate_info:
        said.append(f"Here it is: {', '.join(criteria.communicate_info)}.")
    return [*said, "Could you tell me more?", "Goodbye"]


def timed(work: Any, *arguments: Any, **keywords: Any) -> tuple[float, Any]:
    """Milliseconds, and what came of it."""
    began = time.perf_counter()
    result = work(*arguments, **keywords)
    return (time.perf_counter() - began) * 1e3, result


def episode(env: Any, said: list[str], **reset: Any) -> tuple[float, list[float], float]:
    """Plays one: the time of the reset and of each step, and the reward."""
    start, _ = timed(env.reset, **reset)
    steps, reward = [], 0.0
    for action in said:
        taken, (_, reward, terminated, truncated, _) = timed(env.step, action)
        steps.append(taken)
        if terminated or truncated:
            break
    return start, steps, reward


def resident() -> float:
    """Memory of this process in MB."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def row(what: str, stock: str, ours: str, ratio: float | None, target: str) -> None:
    """Prints one line of the table."""
    print(f"{what:<44} {stock:>14} {ours:>14} {'' if ratio is None else f'{ratio:,.0f} x':>9}  {target}", flush=True)


def speed(domain: str, tasks: int) -> None:
    """Reset, step and scoring, both sides in turn."""
    ours = gymnasium.make("rwml_gym/Tau2-v0", domain=domain)
    games: Any = ours.unwrapped.games  # type: ignore[attr-defined]
    times: dict[str, dict[str, list[float]]] = {
        side: {what: [] for what in ("reset", "step", "scoring")} for side in ("stock", "ours")
    }
    for name in games.names[:: max(1, len(games.names) // tasks)][:tasks]:
        task_id = games.task_id(name)
        said = gold(domain, task_id)
        episode(ours, said, options={"game": name})  # both know the task by now
        repeats = [episode(ours, said, options={"game": name}) for _ in range(5)]
        played = {"ours": repeats, "stock": [episode(stock_env(domain, task_id), said)]}
        rewards = {side: {reward for _, _, reward in episodes} for side, episodes in played.items()}
        assert rewards["ours"] == rewards["stock"], (name, rewards)
        for side, episodes in played.items():
            for start, steps, _ in episodes:
                times[side]["reset"].append(start)
                times[side]["step"] += steps[:-1]
                times[side]["scoring"].append(steps[-1])
    for what in ("reset", "step", "scoring"):
        old, new = (statistics.median(times[side][what]) for side in ("stock", "ours"))
        label = "last step, scoring included" if what == "scoring" else what
        row(f"{domain}: {label}", f"{old:.0f} ms", f"{new:.2f} ms", old / new, TARGETS[what][domain])


def further(domain: str) -> None:
    """Memory of each further environment, in the middle of an episode."""
    env = Tau2Env(domain)
    names = env.games.names
    said = [gold(domain, Tasks(domain, "base").task_id(name))[:3] for name in names]
    for name, actions in zip(names, said, strict=True):  # every task has been parsed by now
        env.reset(options={"game": name})
        [env.step(action) for action in actions[:1]]
    kept: list[Any] = []
    before = resident()
    for number in range(FURTHER):
        env = Tau2Env(domain)
        env.reset(options={"game": names[number % len(names)]})
        env.step(said[number % len(names)][0])
        kept.append(env)
    new = (resident() - before) / FURTHER
    before = resident()
    for number in range(FURTHER_STOCK):
        stock = stock_env(domain, Tasks(domain, "base").task_id(names[number]))
        stock.reset()
        kept.append(stock)
    old = (resident() - before) / FURTHER_STOCK
    row(f"{domain}: memory for each further env", f"{old:.1f} MB", f"{new:.2f} MB", None, "1 MB")


def abandoned() -> None:
    """What episodes leave behind that nobody finishes."""
    env = Tau2Env("airline")
    for name in env.games.names:
        env.reset(options={"game": name})
    before, threads = resident(), threading.active_count()
    for number in range(ABANDONED):
        env.reset(options={"game": env.games.names[number % len(env.games.names)]})
        env.step("Hello?")
    ours = f"{resident() - before:.1f} MB, {threading.active_count() - threads} threads"
    stock = stock_env("airline", "0")
    before, threads = resident(), threading.active_count()
    for _ in range(3):
        stock.reset()
    each = f"{(resident() - before) / 3:.0f} MB, {(threading.active_count() - threads) / 3:.0f} thread"
    row(f"airline: {ABANDONED:,} abandoned episodes (stock: each)", each, ours, None, "nothing left")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=5, help="tasks of each domain")
    tasks = parser.parse_args().tasks
    warnings.filterwarnings("ignore", module="pydantic")
    row("", "stock", "ours", None, "at most")
    for domain in ("airline", "retail", "telecom"):
        speed(domain, tasks)
        further(domain)
    abandoned()


if __name__ == "__main__":
    main()
