"""Updates in more than one process, and the files that start them."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from rwml_gym.agents.learning.distributed import check_distributed
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.errors import InvalidConfigError
from tests.helpers.distributed_update import CASES, run
from tests.helpers.paths import ROOT

CONFIGS = ROOT / "configs" / "accelerate"

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def processes(tiny_folder, tmp_path_factory) -> list[Results]:
    """All cases in two processes, started as a user starts them; what each of the two ended with."""
    out = tmp_path_factory.mktemp("distributed")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "cpu_2.yaml")]
    # A process that waits for another one for ever is killed, and that is a failure.
    done = subprocess.run(
        [*launch, "-m", "tests.helpers.distributed_update", str(tiny_folder), str(out)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{index}.pt") for index in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_two_processes_do_what_one_does_with_all_their_shares(name, processes, tiny_folder):
    expected = run(CASES[name], str(tiny_folder), Accelerator(cpu=True))
    first, second = (results[name] for results in processes)
    for key, weight in expected["weights"].items():
        assert torch.equal(first["weights"][key], second["weights"][key]), key
        torch.testing.assert_close(first["weights"][key], weight, atol=1e-6, rtol=0, msg=key)
    assert first["metrics"] == second["metrics"]
    for actual, wanted in zip(first["metrics"], expected["metrics"], strict=True):
        assert actual == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.long
def test_the_cases_are_clipped_and_differ_from_sampling_most_where_only_the_second_process_sees_it(processes):
    # What the test above compares is there to be compared.
    metrics = processes[0]["gradient descent"]["metrics"][0]
    assert metrics["grad_norm"] > 2 * GRPOConfig().max_grad_norm
    assert metrics["sampling_mismatch"] < 15 < metrics["sampling_mismatch_max"]


@pytest.mark.parametrize(
    ("file", "processes", "kind", "precision"),
    [
        ("cpu_2", 2, DistributedType.MULTI_GPU, "no"),
        ("gpu_1", 1, DistributedType.NO, "bf16"),
        ("gpu_8", 8, DistributedType.MULTI_GPU, "bf16"),
        ("gpu_8_fsdp", 8, DistributedType.FSDP, "bf16"),
        ("gpu_8_zero2", 8, DistributedType.DEEPSPEED, "bf16"),
    ],
)
def test_accelerate_reads_the_files(file, processes, kind, precision):
    config = load_config_from_file(str(CONFIGS / f"{file}.yaml"))
    assert (config.num_processes, config.distributed_type, config.mixed_precision) == (processes, kind, precision)
    assert config.use_cpu == (file == "cpu_2")
    assert bool(config.fsdp_config) == (kind == DistributedType.FSDP)
    assert bool(config.deepspeed_config) == (kind == DistributedType.DEEPSPEED)


def test_no_file_is_left_untested():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"cpu_2", "gpu_1", "gpu_8", "gpu_8_fsdp", "gpu_8_zero2"}


def _accelerator(kind: DistributedType, precision: str = "no") -> Any:
    return SimpleNamespace(distributed_type=kind, mixed_precision=precision, num_processes=2)


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM])
def test_sharded_models_are_refused_before_anything_is_computed(kind):
    accelerator = _accelerator(kind, "bf16")
    for refused in (
        lambda: check_distributed(accelerator),
        lambda: update(None, None, [], GRPOConfig(), accelerator, 8),
        lambda: sft_update(None, None, [], [], accelerator),
    ):
        with pytest.raises(
            InvalidConfigError, match=rf"{kind.value}.*configs/accelerate/gpu_8\.yaml.*integrations/trl\.py"
        ):
            refused()


def test_scaled_losses_are_refused():
    with pytest.raises(InvalidConfigError, match="bf16"):
        check_distributed(_accelerator(DistributedType.MULTI_GPU, "fp16"))


@pytest.mark.parametrize("kind", [DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU])
def test_data_parallel_is_accepted(kind):
    check_distributed(_accelerator(kind, "bf16"))
