"""A rollout of whole episodes: what each turn costs with kept keys and values, and with the history read anew.

Random play is recorded once, and both sides go through it: a turn is 8 tokens written greedily after the episode so
far, then the recorded command and the world's answer are added to it, whatever was written. So both sides read and
write the same. They take turns in one process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from common import ALPHA, RANK, Clock, fill_adapter, line, load_endless, where
from peft import PeftModel

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.language.models import add_adapter, merged
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.transitions import Turn

WRITTEN = 8
SHOWN = (5, 15, 30)

# Of an episode, or of a turn of several: token ids.
Tokens = list[int]


@dataclass(frozen=True)
class Episode:
    """A recorded episode: its first prompt, and what every turn adds to it, the command and the answer."""

    prompt: Tokens
    added: list[Tokens]

    def upto(self, turn: int) -> Tokens:
        """The whole prompt of a turn, from 0."""
        return [*self.prompt, *(token for added in self.added[:turn] for token in added)]


def record(prompts: Prompts, number: int, turns: int) -> list[Episode]:
    """Random play of held-out games, as an agent with `Prompts(history=0)` sees it, without games that end early."""
    episodes: list[Episode] = []
    rng = random.Random(0)
    with gym.make("rwml_gym/ALFWorld-v0", split="generated_held_out", max_episode_steps=turns + 1) as env:
        for name in env.unwrapped.games.names:  # type: ignore[attr-defined]
            observation, info = env.reset(options={"game": name})
            episode = Episode(prompts.act([Turn("", observation)], describe_task(info)), [])
            ended = False
            while len(episode.added) < turns and not ended:
                action = rng.choice(info["admissible_actions"])
                observation, _, ended, _, info = env.step(action)
                target = prompts.action_target(action)
                episode.added.append([*target, *prompts.reply(observation, target)])
            if not ended:
                episodes.append(episode)
            if len(episodes) == number:
                return episodes
    raise SystemExit(f"Only {len(episodes)} games go on for {turns} turns")


class Ours:
    """Sessions, as `LanguageModelAgent` has them."""

    name = "ours"

    def __init__(self, dtype: str) -> None:
        model, self.tokenizer = load_endless(dtype)
        self.model = add_adapter(model, RANK, ALPHA)
        fill_adapter(self.model)
        self.sessions = Sessions(self.model, self.tokenizer)

    def begin(self) -> None:
        """Forgets all episodes."""
        self.sessions.clear()

    def write(self, texts: Sequence[Tokens]) -> list[Tokens]:
        """One turn of every episode."""
        requests = [Request(slot, text) for slot, text in enumerate(texts)]
        done = self.sessions.generate(requests, max_new_tokens=WRITTEN, temperature=0.0)
        return [completion.tokens for completion in done]


class Generate:
    """`model.generate` on the whole text, padded on the left, the adapter beside the weights."""

    name = "generate"

    def __init__(self, dtype: str) -> None:
        model, self.tokenizer = load_endless(dtype, stock=True)
        self.model: PeftModel = add_adapter(model, RANK, ALPHA)
        fill_adapter(self.model)

    def begin(self) -> None:
        """Remembers nothing anyway."""

    def write(self, texts: Sequence[Tokens]) -> list[Tokens]:
        """One turn of every episode."""
        width, pad = max(map(len, texts)), int(self.tokenizer.pad_token_id)
        ids = torch.tensor([[*[pad] * (width - len(text)), *text] for text in texts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=self.model.device)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=WRITTEN, pad_token_id=pad
            )
        return out[:, width:].tolist()


def play(
    sides: Sequence[Ours | Generate], episodes: Sequence[Episode], turns: int, measured: Sequence[int]
) -> tuple[list[list[float]], float]:
    """Goes through the episodes with all sides in turn; the second, which remembers nothing, in some turns only.

    Returns:
        Seconds, one list a side with one number a turn, those that were left out between those that were measured; and
        the share of tokens the sides wrote alike.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    same = total = 0
    clock = Clock()
    for side in sides:
        side.begin()
    for turn in range(turns):
        texts = [episode.upto(turn) for episode in episodes]
        written = []
        for number, side in enumerate(sides):
            if number and turn + 1 not in measured:
                continue
            with clock.part(side.name):
                written.append(side.write(texts))
            seconds[number].append(clock.take()["all"])
        for rows in zip(*written, strict=True):
            if {len(row) for row in rows} != {WRITTEN}:
                raise SystemExit(f"Expected {WRITTEN} tokens a turn, actual {[len(row) for row in rows]}")
            if len(rows) > 1:
                total += WRITTEN
                same += sum(len(set(tokens)) == 1 for tokens in zip(*rows, strict=True))
    seconds[1:] = [np.interp(range(1, turns + 1), measured, taken).tolist() for taken in seconds[1:]]
    return seconds, same / max(total, 1)


def main() -> None:
    """Prints what turns cost, and the whole rollout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32")
    for name in ("episodes", "turns", "repeats", "slow-repeats", "slow-every"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    ours, generate = Ours(options.dtype), Generate(options.dtype)
    episodes = record(Prompts(ours.tokenizer, history=0), options.episodes, options.turns)
    for side in (ours, generate):  # the first call of all is no measure
        side.write([episodes[0].prompt])
    every = range(options.slow_every, options.turns + 1, options.slow_every)
    measured = sorted({1, options.turns, *every})
    times: tuple[list[list[float]], list[list[float]]] = ([], [])
    for repeat in range(max(options.repeats, options.slow_repeats)):
        both = repeat < options.slow_repeats
        began = time.perf_counter()
        with merged(ours.model):  # as `roll_out` does, once a rollout
            merging = time.perf_counter() - began
            seconds, same = play([ours, generate] if both else [ours], episodes, options.turns, measured)
        seconds[0][0] += merging
        for found, taken in zip(times, seconds, strict=False):
            found.append(taken)
        if repeat == 0:
            alike = same
    print(f"Rollout: {options.episodes} episodes of {options.turns} turns, {WRITTEN} tokens written a turn, greedy")
    print(f"{where(ours.model)}; repeats: {len(times[0])} and {len(times[1])}")
    print(f"generate measured in turns {', '.join(map(str, measured))}; the others lie between")
    print("the same texts on both sides; generate has its adapter beside the weights, as PEFT has it by default")
    widths = [12, 18, 14, 12, 12, 10]
    line(["turn", "history tokens", "new tokens", "ours", "generate", "ratio"], widths)
    for turn in sorted({1, *SHOWN, options.turns}):
        if turn > options.turns:
            continue
        history = [len(e.upto(turn - 2)) if turn > 1 else 0 for e in episodes]
        new = [len(e.upto(turn - 1)) - before + WRITTEN for e, before in zip(episodes, history, strict=True)]
        fast, slow = (statistics.median(repeat[turn - 1] for repeat in side) for side in times)
        cells = [f"{statistics.mean(history):.0f}", f"{statistics.mean(new):.0f}", f"{fast:.3f} s", f"{slow:.3f} s"]
        line([turn, *cells, f"{slow / fast:.1f} x"], widths)
    fast, slow = (statistics.median(map(sum, side)) for side in times)
    line(["all turns", "", "", f"{fast:.1f} s", f"{slow:.1f} s", f"{slow / fast:.1f} x"], widths)
    count = options.episodes * options.turns * WRITTEN
    line(["tokens / s", "", "", f"{count / fast:.0f}", f"{count / slow:.0f}", ""], widths)
    print(f"tokens alike on both sides: {alike:.2%}   (target: rollout at least 5 times faster)")


if __name__ == "__main__":
    main()
