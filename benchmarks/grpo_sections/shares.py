"""The shares of the limit that the steps reach; `benchmarks/limits.py` starts it and says what they are."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from unittest import mock

import torch
from accelerate import Accelerator
from common import ALPHA, RANK, fill_adapter, load_endless, where
from flops import Decoder, matmul_rate
from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.few_rows import FewRowsLinear, OutputLinear
from rwml_gym.agents.language.models import add_adapter, merged
from rwml_gym.agents.language.sampling import run_prompts, sample
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig, ObservationLossConfig

PROMPTS, GROUP, WRITTEN = (252, 247, 261, 287), 8, 24
GAMES, EPISODES, BEGINNING, TURNS, ANSWER = 2, 4, 300, 8, 30
ADVANTAGES = (1.0, -1.0)
CHANGES = (
    "a game's beginning once",
    "no table of scores",
    "few rows, predictions",
    "few rows, a turn of play",
    "few rows, update",
    "answers learnt, too",
)


@dataclass
class Bench:
    """A policy that writes to the limit, and what its updates need."""

    policy: nn.Module
    tokenizer: PreTrainedTokenizerBase
    decoder: Decoder
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer

    def update(self, groups: Sequence[Group], answers: ObservationLossConfig | None = None) -> None:
        """Update on the groups at learning rate 0, so that every repeat does the same."""
        update(self.policy, self.optimizer, groups, GRPOConfig(beta=0.0), self.accelerator, WRITTEN, answers, 0.05)


def world_model_step(bench: Bench, keep: bool) -> tuple[float, float]:
    """Do one world-model step; return the seconds of sampling and of the update."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(10, 40_000, (length,), generator=generator).tolist() for length in PROMPTS]
    began = time.perf_counter()
    prefixes = run_prompts(bench.policy, prompts) if keep else [None] * len(prompts)
    results = sample(
        bench.policy,
        bench.tokenizer,
        prompts,
        GROUP,
        max_new_tokens=WRITTEN,
        prefixes=[prefix for prefix in prefixes if prefix is not None] or None,
    )
    sampled = time.perf_counter()
    groups = [
        Group(prompt, [c.tokens for c in row], ADVANTAGES * (GROUP // 2), [c.logprobs for c in row], prefix=prefix)
        for prompt, row, prefix in zip(prompts, results, prefixes, strict=True)
    ]
    bench.update(groups)
    return sampled - began, time.perf_counter() - sampled


def policy_step(bench: Bench) -> tuple[float, float]:
    """Do one policy step without an environment; return the seconds of generation and of the update."""
    generator = torch.Generator().manual_seed(1)
    answers = torch.randint(10, 40_000, (GAMES * EPISODES, TURNS, ANSWER), generator=generator)
    starts = torch.randint(10, 40_000, (GAMES, BEGINNING), generator=generator).tolist()
    texts = [list(starts[row // EPISODES]) for row in range(GAMES * EPISODES)]
    masks: list[list[int]] = [[] for _ in texts]
    sessions = Sessions(bench.policy, bench.tokenizer)
    began = time.perf_counter()
    with merged(bench.policy):
        for turn in range(TURNS):
            requests = [Request(row, list(text), seed=1000 * row + turn) for row, text in enumerate(texts)]
            for row, completion in enumerate(sessions.generate(requests, max_new_tokens=WRITTEN)):
                last = turn + 1 == TURNS
                answer = [] if last else answers[row, turn].tolist()
                texts[row] += [*completion.tokens, *answer]
                masks[row] += [*[1] * len(completion.tokens), *[0] * len(answer)]
    written = time.perf_counter()
    groups = []
    for game in range(GAMES):
        rows = range(game * EPISODES, (game + 1) * EPISODES)
        groups.append(
            Group(
                starts[game],
                [texts[row][BEGINNING:] for row in rows],
                ADVANTAGES * (EPISODES // 2),
                mask=[masks[row] for row in rows],
            )
        )
    bench.update(groups)
    return written - began, time.perf_counter() - written


def needed_by_policy(decoder: Decoder) -> tuple[float, float]:
    """Count the operations of `policy_step`: every distinct token once, logits for written tokens."""
    rows = TURNS * WRITTEN + (TURNS - 1) * ANSWER - 1  # the last token does not run
    tokens = GAMES * (BEGINNING + EPISODES * rows)
    causal = BEGINNING * (BEGINNING + 1) // 2
    whole = (BEGINNING + rows) * (BEGINNING + rows + 1) // 2
    pairs = GAMES * (causal + EPISODES * (whole - causal))
    parts = decoder.parts(tokens, pairs, GAMES * EPISODES * TURNS * WRITTEN)
    sampling = parts["linear"] + parts["attention"] + parts["head"]
    return sampling, 2 * (parts["linear"] + parts["head"]) + 3 * (parts["attention"] + parts["adapter"])


def layer_rates(decoder: Decoder, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Measure the rate of `linear` at the model's own shapes, in operations a second: medians."""
    rates = {}
    for name, tokens, inputs, outputs in (
        ("gate, a prompt", 256, decoder.hidden, decoder.intermediate),
        ("gate, 32 rows", 32, decoder.hidden, decoder.intermediate),
        ("head, a group", GROUP * (WRITTEN - 1), decoder.hidden, decoder.vocabulary),
        ("head, 32 rows", 32, decoder.hidden, decoder.vocabulary),
    ):
        x = torch.randn(tokens, inputs, dtype=dtype, device=device)
        weight = torch.randn(outputs, inputs, dtype=dtype, device=device)
        seconds = []
        for _ in range(9):
            began = time.perf_counter()
            nn.functional.linear(x, weight)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        rates[name] = 2.0 * tokens * inputs * outputs / statistics.median(seconds)
    return rates


def compare(bench: Bench, repeats: int, names: Sequence[str]) -> None:
    """Print what each change of the update gains, or those named: the way before and the way now in turns, minima."""
    generator = torch.Generator().manual_seed(2)

    def group(prompt: int, rows: int, length: int, written: Sequence[int]) -> Group:
        texts = torch.randint(10, 40_000, (rows, length), generator=generator).tolist()
        start = torch.randint(10, 40_000, (prompt,), generator=generator).tolist()
        return Group(start, texts, ADVANTAGES * (rows // 2), mask=[list(written)] * rows)

    turns = ([1] * WRITTEN + [0] * ANSWER) * TURNS
    game = group(BEGINNING, EPISODES, len(turns) - ANSWER, turns[: len(turns) - ANSWER])
    predicted = group(PROMPTS[0], GROUP, WRITTEN, [1] * WRITTEN)

    def table() -> AbstractContextManager[object]:
        return mock.patch("rwml_gym.agents.language.shared_prefix._joined_mask", return_value=None)

    @contextmanager
    def plain_layers() -> Iterator[None]:
        kinds = {m: type(m) for m in bench.policy.modules() if isinstance(m, FewRowsLinear | OutputLinear)}
        for module in kinds:
            module.__class__ = nn.Linear
        try:
            yield
        finally:
            for module, kind in kinds.items():
                module.__class__ = kind

    starts = [torch.randint(10, 40_000, (length,), generator=generator).tolist() for length in PROMPTS]

    def predict() -> None:
        sample(bench.policy, bench.tokenizer, starts, GROUP, max_new_tokens=WRITTEN)

    def play() -> None:
        sessions = Sessions(bench.policy, bench.tokenizer)
        requests = [Request(row, starts[row // EPISODES], seed=row) for row in range(GAMES * EPISODES)]
        with merged(bench.policy):
            sessions.generate(requests, max_new_tokens=WRITTEN)

    answers = ObservationLossConfig("cross_entropy")
    learnt = replace(
        game,
        targets=[
            [-1 if counts else token for token, counts in zip(row, turns, strict=False)] for row in game.completions
        ],
    )
    pairs: list[tuple[str, Callable[[], AbstractContextManager[object]], Callable[[], None], Callable[[], None]]] = [
        (CHANGES[0], nullcontext, lambda: bench.update(game.rows()), lambda: bench.update([game])),
        (CHANGES[1], table, lambda: bench.update([predicted]), lambda: bench.update([predicted])),
        (CHANGES[2], plain_layers, predict, predict),
        (CHANGES[3], plain_layers, play, play),
        (CHANGES[4], plain_layers, lambda: bench.update([predicted]), lambda: bench.update([predicted])),
        (CHANGES[5], nullcontext, lambda: bench.update([game]), lambda: bench.update([learnt], answers)),
    ]
    for name, before, old, new in (pair for pair in pairs if not names or pair[0] in names):
        taken: dict[str, list[tuple[float, float]]] = {"before": [], "now": []}
        for repeat in range(repeats + 1):
            for way, context, work in (("before", before, old), ("now", nullcontext, new)):
                began, used = time.perf_counter(), time.process_time()
                with context():
                    work()
                if repeat:  # the first one warms up
                    taken[way].append((time.perf_counter() - began, time.process_time() - used))
        (wall, used), (wall_now, used_now) = ([min(part) for part in zip(*taken[way], strict=True)] for way in taken)
        print(
            f"{name:<26}{wall:>8.2f} s{wall_now:>8.2f} s now{wall / wall_now:>6.2f} x, "
            f"of processors{used:>8.2f} s{used_now:>8.2f} s{used / used_now:>6.2f} x",
            flush=True,
        )


@dataclass
class Repeat:
    """One repeat of a step: its seconds, and the limit around it, in operations a second."""

    sampled: float
    updated: float
    limit: float


def show(name: str, needed: tuple[float, float], repeats: Sequence[Repeat]) -> None:
    """Print sampling, update and their sum: least seconds, and the median of the shares with the range of all."""
    for part, operations, taken in (
        ("sampling", needed[0], [r.sampled for r in repeats]),
        ("update", needed[1], [r.updated for r in repeats]),
        ("step", sum(needed), [r.sampled + r.updated for r in repeats]),
    ):
        shares = sorted(operations / seconds / r.limit for seconds, r in zip(taken, repeats, strict=True))
        print(
            f"{f'{name}, {part}':<40}{operations / 1e9:>6.0f} GFLOP{min(taken):>8.2f} s"
            f"{operations / min(taken) / 1e9:>6.0f} GFLOP/s  {statistics.median(shares):.2f} of the limit "
            f"({shares[0]:.2f} to {shares[-1]:.2f})",
            flush=True,
        )


def measure(dtype: str, repeats: int, only: str | None, profile: bool, changes: Sequence[str]) -> None:
    """Measure and print both steps in one dtype, or the changes."""
    model, tokenizer = load_endless(dtype)
    policy = add_adapter(model, RANK, ALPHA)
    fill_adapter(policy)
    device, precision = model.device, model.dtype
    decoder = Decoder.of(model.config, RANK)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], 0.0)
    bench = Bench(policy, tokenizer, decoder, Accelerator(cpu=device.type == "cpu"), optimizer)
    if only == "changes":
        print(f"\n{where(model)}")
        compare(bench, repeats, changes)
        return
    print(f"\n{where(model)}")
    for name, reached in layer_rates(decoder, precision, device).items():
        print(f"  {name:<20}{reached / 1e9:>8.0f} GFLOP/s")
    steps: dict[str, tuple[tuple[float, float], Callable[[], tuple[float, float]]]] = {}
    if only != "policy":
        groups = [(length, [WRITTEN] * GROUP) for length in PROMPTS]
        twice = (decoder.sampling(groups), decoder.update(groups))
        forward = decoder.parts(sum(PROMPTS), sum(n * (n + 1) // 2 for n in PROMPTS), 0)
        # A prompt that runs once has its forward pass in the sampling, with its adapter, and is not needed twice.
        again = forward["linear"] + forward["attention"] + forward["adapter"]
        needed = (twice[0] + forward["adapter"], twice[1] - again)
        steps["world model"] = (needed, lambda: world_model_step(bench, keep=False))
        steps["world model, kept prompts"] = (needed, lambda: world_model_step(bench, keep=True))
    if only != "world-model":
        steps["policy"] = (needed_by_policy(decoder), lambda: policy_step(bench))
    # A shared machine changes its speed within minutes, so the limit is measured around every repeat.
    taken: dict[str, list[Repeat]] = {name: [] for name in steps}
    limits = [matmul_rate(device, precision, seconds=0.5)]
    for repeat in range(repeats + 1):
        for name, (_, work) in steps.items():
            sampled, updated = work()
            limits.append(matmul_rate(device, precision, seconds=0.5))
            if repeat:  # the first one warms up
                taken[name].append(Repeat(sampled, updated, statistics.mean(limits[-2:])))
    low, high = min(limits) / 1e9, max(limits) / 1e9
    print(f"  {'square products':<20}{low:>5.0f} to {high:.0f} GFLOP/s, the limit")
    for name, (operations, _) in steps.items():
        show(name, operations, taken[name])
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            world_model_step(bench, keep=False)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=44))


def main() -> None:
    """Measure every dtype that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("world-model", "policy", "changes"))
    parser.add_argument("--change", nargs="+", choices=CHANGES, default=[], help="with --only changes")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for dtype in options.dtype:
        measure(dtype, options.repeats, options.only, options.profile, options.change)


if __name__ == "__main__":
    main()
