"""What an evaluation costs beside the environment's own time, and what asking many at once brings.

    python benchmarks/evaluation.py [--split valid_seen --data JSON_FOLDER] [--repeats 5]

1. The expert plays a split in a plain Gymnasium loop, and in `rwml-gym evaluate` with traces, in turns.
2. A model behind a local server, which takes 50 ms for an answer, plays with 1 and with 16 requests in flight.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.panel import choose
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.agents.runs.worlds import Source

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' server is not installed
from tests.helpers.chat_server import chat_server

ANSWER = 0.05  # seconds of the server
LOOK = {"content": "Action: look"}


def plain_loop(config: EvaluateConfig) -> tuple[float, int]:
    """Play the split without evaluation; return the seconds and the number of steps."""
    began, steps, agent = perf_counter(), 0, ExpertAgent()
    with Source(config).make(None, config.split, expert=True)() as env:
        for game in choose(env, config.episodes):
            observation, info = env.reset(options={"game": game})
            over = False
            while not over:
                (action,) = agent.act([observation], [info])
                observation, _, terminated, truncated, info = env.step(action)
                over, steps = terminated or truncated, steps + 1
    return perf_counter() - began, steps


def with_traces(config: EvaluateConfig) -> float:
    """Return the seconds of the same evaluation with traces."""
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        evaluate(config, Path(folder) / "run")
        return perf_counter() - began


def serve(pipe: Connection) -> None:
    """Run the server in a process of its own until the pipe says stop."""
    with chat_server(lambda number, body: LOOK, ANSWER) as (address, _):
        pipe.send(address)
        pipe.recv()


def asked(concurrency: int, episodes: int) -> float:
    """Return the answers a second of a model that is asked by so many at once."""
    ours, theirs = Pipe()
    server = Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    arguments = json.dumps({"api_base": ours.recv(), "api_key": "none"})
    config = EvaluateConfig(
        env="toy",
        agent="litellm:openai/m",
        agent_arguments=arguments,
        episodes=episodes,
        max_steps=10,
        concurrency=concurrency,
    )
    evaluate(config)  # the first call imports much
    began = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        steps = sum(episode.steps for episode in evaluate(config, Path(folder) / "run").episodes)
    seconds = perf_counter() - began
    ours.send("stop")
    server.join()
    return steps / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="generated_held_out")
    parser.add_argument("--data", help="folder of official ALFWorld games; $ALFWORLD_DATA if absent")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = EvaluateConfig(agent="expert", split=options.split, data=options.data)
    plain_loop(config)
    plain, traced = [], []
    for _ in range(options.repeats):
        seconds, steps = plain_loop(config)
        plain.append(seconds)
        traced.append(with_traces(config))
    ratios = sorted(t / p for t, p in zip(traced, plain, strict=True))
    print(f"{options.split}, expert, {steps} steps; medians of {options.repeats}, in turns")
    print(f"  plain loop          {median(plain):7.2f} s")
    print(
        f"  with traces         {median(traced):7.2f} s  ({median(ratios):.2f} x; {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    one, many = asked(1, 4), asked(16, 64)
    print(f"A model that takes {ANSWER * 1000:.0f} ms: {one:.1f} answers a second alone, {many:.1f} with 16 in flight")
    print(f"  ({many / one:.1f} x)")


if __name__ == "__main__":
    main()
