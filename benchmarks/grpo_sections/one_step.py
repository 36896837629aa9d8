"""Makes a fine-tuning step or samples for each line that it reads; `benchmarks/shared_machine.py` asks for them."""

from __future__ import annotations

import sys
import time

import torch
from accelerate import Accelerator
from common import RANK, load_endless

from rwml_gym.agents.language.models import add_adapter
from rwml_gym.agents.language.sampling import sample
from rwml_gym.agents.learning.sft import sft_update


def main() -> None:
    """Prints the seconds of each step."""
    model, tokenizer = load_endless("float32")
    policy = add_adapter(model, RANK)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-5)
    accelerator = Accelerator(cpu=True)
    generator = torch.Generator().manual_seed(0)
    prompts, targets = (
        [torch.randint(10, 49_000, (length,), generator=generator).tolist() for _ in range(2)] for length in (120, 24)
    )
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        if line.strip() == "update":
            sft_update(policy, optimizer, prompts, targets, accelerator)
        else:
            sample(policy, tokenizer, prompts, 4, max_new_tokens=6)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
