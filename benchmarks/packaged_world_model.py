"""Make the world model that comes with the package from a run: a smaller adapter, scored beside the one it is made of.

    rwml-gym train rwml --preset demo --seed 0 --run-dir runs/seed-0
    python benchmarks/packaged_world_model.py runs/seed-0 --transitions runs/seed-1/transitions/held_out

The transitions are of games that the run did not play: take the held-out ones of a run with another seed. Adapters of
several runs may be given; each is scored, and the best of the smaller ones is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from rwml_gym.agents.config.files import load_config
from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.jobs.data import some_of, with_outcome
from rwml_gym.agents.jobs.reward import make_gap
from rwml_gym.agents.language.adapters.compress import compress_adapter
from rwml_gym.agents.language.world_model import PACKAGED_WORLD_MODELS, WORLD_MODEL_FILE, load_world_model
from rwml_gym.agents.reports.evaluate import evaluate_predictions
from rwml_gym.agents.reports.model_card import write_card
from rwml_gym.reward.gap import GapReward
from rwml_gym.statistics import share_interval
from rwml_gym.transitions import TransitionDataset, count_games


def score(folder: Path, data: TransitionDataset, gap: GapReward) -> tuple[float, float, float]:
    """Return the mean reward of greedy predictions with its 95 % interval over games."""
    model = load_world_model(folder)
    predictions = model.predict([t.history for t in data], [t.action for t in data], [t.task for t in data])
    rows = evaluate_predictions(data, predictions, gap)
    return share_interval([row.reward for row in rows], [row.game for row in rows])


def main() -> None:
    """Compress, score, and keep the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--transitions", type=Path, required=True)
    parser.add_argument("--adapter", default="rwml")
    parser.add_argument("--rank", type=int, default=9)
    parser.add_argument("--limit", type=int, default=240)
    parser.add_argument("--out", type=Path, default=PACKAGED_WORLD_MODELS["smollm2-alfworld"])
    options = parser.parse_args()
    data = some_of(with_outcome(TransitionDataset.load(options.transitions)), options.limit, 100)
    print(f"{len(data)} transitions of {count_games(data)} that no candidate was trained on")
    candidates = []
    with tempfile.TemporaryDirectory() as made:
        for number, run in enumerate(options.runs):
            config = load_config(RWMLConfig, run / "config.yaml")
            chosen = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
            gap = make_gap(config, False, config.encoder, {role: found["threshold"] for role, found in chosen.items()})
            source, smaller = run / "adapters" / options.adapter, Path(made) / str(number) / options.out.name
            kept = compress_adapter(source, smaller, options.rank)
            shutil.copy(source / WORLD_MODEL_FILE, smaller)
            whole, half = score(source, data, gap), score(smaller, data, gap)
            size = (smaller / "adapter_model.safetensors").stat().st_size / 1e6
            print(
                f"seed {config.seed}: rank {config.lora_rank} {whole[0]:.3f} [{whole[1]:.3f}, {whole[2]:.3f}], rank "
                f"{options.rank} {half[0]:.3f} [{half[1]:.3f}, {half[2]:.3f}], {kept:.1%} of the squared change kept, "
                f"{size:.1f} MB"
            )
            candidates.append((half, smaller, config, gap))
        best, smaller, config, gap = max(candidates, key=lambda each: each[0][0])
        mean, low, high = best
        results = {
            f"reward at τ_d {gap.threshold:.3g} ({config.gap}) on {len(data)} transitions of "
            f"{len({t.game for t in data})} other generated games": f"{mean:.3f} [{low:.3f}, {high:.3f}]",
            "runs, of which this is the best there": str(len(candidates)),
            "LoRA rank": f"{options.rank}, the nearest to the run's adapter of rank {config.lora_rank}",
        }
        other = options.transitions.resolve().parts[-3]  # the other run
        run = f"runs/seed-{config.seed}"
        command = (
            f"rwml-gym train rwml --preset demo --seed {config.seed} --run-dir {run} && "
            f"python benchmarks/packaged_world_model.py {run} --transitions runs/{other}/transitions/held_out"
        )
        title = "SmolLM2-135M-Instruct as a world model of ALFWorld"
        write_card(smaller, config.model, title, config, results, data[0].data_version, command)
        shutil.rmtree(options.out, ignore_errors=True)
        shutil.copytree(smaller, options.out)
        for path in options.out.iterdir():
            path.chmod(0o644)
    print(f"Kept: seed {config.seed}, {mean:.3f} [{low:.3f}, {high:.3f}], in {options.out}")


if __name__ == "__main__":
    main()
