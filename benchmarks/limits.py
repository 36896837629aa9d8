"""How close the world-model step and the policy step are to what the machine's matrix products reach.

    python benchmarks/limits.py [--dtype float32 bfloat16] [--repeats 3] [--only world-model|policy|changes]

SmolLM2-135M-Instruct, LoRA r = 16. For sampling, update and the whole step: the operations that the work needs (counted
by `benchmarks/flops.py`: a prompt and a shared turn run once, logits only for tokens that count, no gradient of frozen
weights), the operations a second that the step reaches, and their share of the rate of square matrix products in the
same dtype, measured around every repeat in the same process: the median share, and the range. The rate at the shapes of
the model's own layers is printed beside it.

* world model: 4 prompts of 252, 247, 261 and 287 tokens, 8 completions of 24 tokens, every group in the update; today's
  way, and with prompts kept from sampling to update, in turns.
* policy: 2 games, 4 rows of each: a beginning of 300 tokens, then 8 turns of 24 written tokens and 30 answered ones, as
  `benchmarks/grpo_speed.py --only parts` plays on average; generation by sessions, update after a shared beginning.

`--only changes` times the way before each change and the way now, in turns in one process: the beginning of a game for
each episode or once, a table of attention scores or none, few rows in the order of torch or in the other
(`agents/language/few_rows.py`); and what it costs to learn the world's answers as well, which `--change "answers
learnt, too"` times alone. Where others use the machine, run it with `OMP_NUM_THREADS=1` and read the seconds of
processors.

`--profile` adds the operators that take the most time of one world-model update.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run the measurement with this folder and that of the sections on the path; all options are its own."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(HERE / "grpo_sections" / "shares.py"), *sys.argv[1:]]
    sys.exit(subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode)


if __name__ == "__main__":
    main()
