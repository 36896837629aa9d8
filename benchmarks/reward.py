"""The reward beside calling `SentenceTransformer.encode` twice a step, on recorded steps of ALFWorld and τ²-bench.

    python benchmarks/reward.py [--steps 20000] [--every 20] [--only stream|wrapper]

*Stream*: random players record half of the steps in generated ALFWorld games and half in τ²-bench (airline, retail,
telecom), each game planned for 8 plays in random order, as by a group of GRPO, up to the number of steps. How often
they were really played is printed: τ²-bench's less, as its episodes are longer than planned for. `--rollouts 1`
repeats as little as the number of tasks allows. What is predicted of a step is what retrieval says, learning as it
goes; and, in a second and shorter stream, words that were never said before, as a language model may find them. Both
sides score the same steps one at a time, as a wrapper does, in turns of a twentieth of the stream; `encode` scores
every `--every`th, since all of them would take a quarter of an hour. Prints rewards a second of both, their ratio,
the largest difference of the distances, and what the cache held and answered; the same with a cache of 4 MB; and
rewards a second where tool results are compared by ROUGE-L, as in the paper.

*Wrapper*: one ALFWorld episode, plain and wrapped in turns, all texts cached; medians of 200.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.encoders.cached import CachedEncoder
from rwml_gym.encoders.local import SentenceTransformerEncoder
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition
from rwml_gym.world_models.retrieval import RetrievalWorldModel
from rwml_gym.wrappers import RecordTransitions, WorldModelRewardVectorWrapper, WorldModelRewardWrapper

DOMAINS = ("airline", "retail", "telecom")
TURNS = 20
SMALL_CACHE = 4 * 2**20
EPISODES = 200
LONGEST = 30  # steps of an episode
ROLLOUTS = 8  # of a game: a group of GRPO


def record_alfworld(steps: int, rollouts: int) -> list[Transition]:
    """Random play of generated games."""
    env = RecordTransitions(gym.make("rwml_gym/ALFWorld-v0", max_episode_steps=LONGEST))
    rng = random.Random(0)
    for seed in order(-(-steps // LONGEST), rollouts, rng):
        if len(env.transitions) >= steps:
            break
        _, info = env.reset(seed=seed)
        for _ in range(LONGEST):
            *_, terminated, truncated, info = env.step(rng.choice(info["admissible_actions"]))
            if terminated or truncated:
                break
    return env.transitions[:steps]


def record_tau2(steps: int, rollouts: int) -> list[Transition]:
    """A random caller's play of base tasks of three domains."""
    played: list[Transition] = []
    for domain, share in zip(DOMAINS, np.diff(np.linspace(0, steps, len(DOMAINS) + 1).astype(int)), strict=True):
        env = RecordTransitions(gym.make("rwml_gym/Tau2-v0", domain=domain, split="base", max_episode_steps=LONGEST))
        tasks = env.unwrapped.games.names
        agent, rng = RandomCallerAgent(seed=0), random.Random(0)
        for number in order(share // 10, rollouts, rng):  # about 10 steps an episode
            if len(env.transitions) >= share:
                break
            observation, info = env.reset(seed=number, options={"game": tasks[number % len(tasks)]})
            agent.reset([True])
            ended = False
            while not ended:
                (action,) = agent.act([observation], [info])
                observation, _, terminated, truncated, info = env.step(action)
                ended = terminated or truncated
        played += env.transitions[:share]
    return played


def order(episodes: int, rollouts: int, rng: random.Random) -> Iterator[int]:
    """Numbers of games, each as often as it is played, in random order; then further ones, once each."""
    games = -(-episodes // rollouts)
    planned = [game for game in range(games) for _ in range(rollouts)]
    rng.shuffle(planned)
    return itertools.chain(planned, itertools.count(games))


def interleave(steps: int, rollouts: int) -> list[Transition]:
    """Both worlds in turn, as a vector environment would bring them."""
    pairs = zip(record_alfworld(steps // 2, rollouts), record_tau2(steps // 2, rollouts), strict=True)
    return [transition for pair in pairs for transition in pair]


def predict(transitions: Sequence[Transition]) -> list[str]:
    """What retrieval says before it learns what happened; no part of what is timed."""
    model, predictions = RetrievalWorldModel(encoder="hashing", capacity=1024), []
    for transition in tqdm(transitions, desc="predictions"):
        (prediction,) = model.predict([transition.history], [transition.action])
        predictions.append(prediction or "Nothing happens.")
        model.learn([transition.history], [transition.action], [transition.next_state])
    return predictions


def compare(
    predictions: list[str], transitions: list[Transition], every: int, encoder: SentenceTransformerEncoder
) -> None:
    """Both sides in turns over one stream."""
    cached = CachedEncoder(encoder)
    gap = GapReward(cached)
    worlds = [transition.env_id for transition in transitions]
    ours: dict[str, list[float]] = {world: [] for world in dict.fromkeys(worlds)}
    theirs: dict[str, list[float]] = {world: [] for world in ours}
    worst = 0.0
    size = -(-len(worlds) // TURNS)
    for turn in tqdm(range(TURNS), desc="rewards"):
        chunk = range(turn * size, min((turn + 1) * size, len(worlds)))
        distances: dict[int, float] = {}
        for i in chunk:
            began = time.perf_counter()
            distances[i] = gap([predictions[i]], [transitions[i].next_state]).distances[0]
            ours[worlds[i]].append(time.perf_counter() - began)
        for i in chunk:
            if i // 2 % every == 0:  # steps come in pairs, one of each world
                began = time.perf_counter()
                distance = plain_distance(encoder, predictions[i], transitions[i].next_state)
                theirs[worlds[i]].append(time.perf_counter() - began)
                worst = max(worst, abs(distance - distances[i]))
    print(f"  {'rewards a second':<24} {'encode twice':>12} {'GapReward':>12} {'ratio':>7}")
    for name, parts in (("both", list(ours)), *((world, [world]) for world in ours)):
        mine, plain = (float(np.mean([t for part in parts for t in times[part]])) for times in (ours, theirs))
        print(f"  {name:<24} {1 / plain:12.1f} {1 / mine:12.1f} {plain / mine:7.1f}")
    print(f"  steps {len(worlds)} and {sum(map(len, theirs.values()))}; largest difference of a distance {worst:.1e}")
    told(cached)


def by_words(predictions: list[str], transitions: list[Transition], encoder: SentenceTransformerEncoder) -> None:
    """The stream as the paper measures it: tool results by ROUGE-L."""
    gap = GapReward(CachedEncoder(encoder), measures={"tool": {"gap": "rouge"}})
    began = time.perf_counter()
    for prediction, transition in tqdm(list(zip(predictions, transitions, strict=True)), desc="ROUGE"):
        gap([prediction], [transition.next_state], [transition.role])
    print(f"  tool results by ROUGE-L: {len(transitions) / (time.perf_counter() - began):.1f} rewards/s")


def plain_distance(encoder: SentenceTransformerEncoder, prediction: str, state: str) -> float:
    """The distance as anybody would compute it."""
    guess, truth = (
        encoder.model.encode([text], show_progress_bar=False, normalize_embeddings=True)[0]
        for text in (prediction, state)
    )
    return 1.0 - float(np.dot(guess.astype(np.float64), truth.astype(np.float64)))


def small_cache(predictions: list[str], states: list[str], large: SentenceTransformerEncoder) -> None:
    """What a small cache answers, by counting alone: zeros stand for the vectors."""

    class Zeros:
        name = large.name

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts), 384), dtype=np.float32)

    cached = CachedEncoder(Zeros(), cache_bytes=SMALL_CACHE)
    gap, most = GapReward(cached), 0
    for prediction, state in zip(predictions, states, strict=True):
        gap([prediction], [state])
        most = max(most, cached.used_bytes)
    assert most <= SMALL_CACHE
    told(cached)


def told(cached: CachedEncoder) -> None:
    """Says what a cache held and answered."""
    print(
        f"  cache: {cached.hit_rate:.1%} of {cached.hits + cached.misses} texts answered, {len(cached)} texts in "
        f"{cached.used_bytes / 2**20:.1f} MB of at most {cached.cache_bytes / 2**20:.0f}"
    )


def stream(steps: int, every: int, rollouts: int) -> None:
    """Rewards a second, and what the cache answers."""
    encoder = SentenceTransformerEncoder()
    transitions = interleave(steps, rollouts)
    states = [transition.next_state for transition in transitions]
    print(f"{len(states)} steps, {len(set(states))} distinct states")
    for world in dict.fromkeys(transition.env_id for transition in transitions):
        starts = [t.game for t in transitions if t.env_id == world and t.step == 0]
        print(f"  {world}: {len(starts)} episodes of {len(set(starts))} games")
    said = predict(transitions)
    print("Predictions of retrieval:")
    compare(said, transitions, every, encoder)
    small_cache(said, states, encoder)
    by_words(said, transitions, encoder)
    # A tenth, as hardly anything can be remembered.
    tenth = len(states) // 10
    print(f"Predictions never made before, {tenth} steps:")
    compare([f"{words} Or number {i}." for i, words in enumerate(said[:tenth])], transitions[:tenth], every, encoder)


def wrapper() -> None:
    """What wrapping costs a step."""
    plain = gym.make("rwml_gym/ALFWorld-v0")
    _, info = plain.reset(seed=0)
    game, rng = info["game"], random.Random(0)
    actions, answers = [], []
    for _ in range(49):
        actions.append(rng.choice(info["admissible_actions"]))
        observation, *_, info = plain.step(actions[-1])
        answers.append(observation)
    written = [f"{a} <next_state>{o}</next_state>" for a, o in zip(actions, answers, strict=True)]
    runs: dict[str, tuple[Any, Sequence[Any]]] = {
        "plain": (plain, actions),
        "predictions written": (WorldModelRewardWrapper(gym.make("rwml_gym/ALFWorld-v0")), written),
        "nothing-changes": (
            WorldModelRewardWrapper(gym.make("rwml_gym/ALFWorld-v0"), predictor="nothing-changes"),
            actions,
        ),
    }
    slots = 16
    vector = gym.make_vec("rwml_gym/ALFWorld-v0", num_envs=slots)
    wrapped = WorldModelRewardVectorWrapper(gym.make_vec("rwml_gym/ALFWorld-v0", num_envs=slots))
    runs["16 slots plain"] = (vector, [[action] * slots for action in actions])
    runs["16 slots, predictions written"] = (wrapped, [[text] * slots for text in written])
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(EPISODES):
        for name, (env, texts) in runs.items():
            env.reset(options={"game": game})
            began = time.perf_counter()
            for text in texts:
                env.step(text)
            times[name].append((time.perf_counter() - began) / len(texts) * 1e6)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print("An ALFWorld step, µs (medians; all texts cached):")
    for name, median in medians.items():
        share = slots if "16" in name else 1
        base = medians["16 slots plain" if share > 1 else "plain"]
        print(f"  {name:<30} {median / share:6.1f} a slot   {(median - base) / share:+6.1f}")


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=20, help="steps from one that `encode` scores to the next")
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS, help="plays of a game")
    parser.add_argument("--only", choices=("stream", "wrapper"))
    arguments = parser.parse_args()
    if arguments.only != "stream":
        wrapper()
    if arguments.only != "wrapper":
        stream(arguments.steps, arguments.every, arguments.rollouts)


if __name__ == "__main__":
    main()
