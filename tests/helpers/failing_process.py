"""Runs the command line, in which the second of several processes loses its encoder in the second GRPO step.

accelerate launch … -m tests.helpers.failing_process train rwml …
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rwml_gym.agents.cli.main import main
from rwml_gym.agents.jobs import world_model

_score = world_model.score_attempts


def _lose_the_encoder(*args: Any) -> Any:
    if os.environ["RANK"] == "1":
        raise OSError("the encoder is gone")
    return _score(*args)


_step = world_model.grpo_step


def _second_step_fails(
    predictor: Any, data: Any, gap: Any, config: Any, accelerator: Any, number: int, *rest: Any, **more: Any
):
    if number == 1:
        world_model.score_attempts = _lose_the_encoder
    return _step(predictor, data, gap, config, accelerator, number, *rest, **more)


if __name__ == "__main__":
    world_model.grpo_step = _second_step_fails
    sys.exit(main())
