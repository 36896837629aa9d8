"""Model cards of trained adapters, and their upload to a model hub."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rwml_gym.agents.config.files import flatten
from rwml_gym.agents.packaged import PACKAGED, licence_of, public_name
from rwml_gym.agents.reports.markup import code, our_name, plain, table
from rwml_gym.errors import ModelNotFoundError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import is_sealed, seal
from rwml_gym.hub import upload

__all__ = ["push_adapter", "write_card"]

_TAGS = ["lora", "reinforcement-learning", "world-model", "rwml-gym"]
_PACKAGES = ("rwml-gym", "torch", "transformers", "peft", "accelerate")
_TEMPLATE = """---
{header}
---

# {title}

A LoRA adapter of {model}, trained with {package}.{note}

## Trained on

Data: {data}

## Trained how

{command}

<details><summary>Configuration</summary>

{config}

</details>

## Results

{metrics}

These results come from one run with one seed on the data named above. They do not apply to other environments.

## Use

{use}

## Versions

{versions}

## Limits

The adapter works with this base model only, and shares its limits and licence terms. It was trained on text
environments. Do not rely on its output elsewhere, above all on statements about the real world.
"""


def write_card(
    folder: str | Path,
    base_model: str,
    title: str,
    config: Any,
    metrics: Mapping[str, float | str],
    data_version: str,
    command: str,
    repo_id: str | None = None,
) -> None:
    """Write a model card into the folder of a saved adapter, in place of PEFT's empty one.

    The same base model is written into the adapter's configuration, where PEFT puts the folder it was loaded from.

    Args:
        folder: Folder with an adapter of `learning.checkpoint.save_adapter`.
        base_model: The language model: a hub id, a packaged name, which goes on the card as its hub id, or a folder,
            whose last name alone does.
        title: Heading of the card.
        config: The run's configuration, a dataclass.
        metrics: Results by name; numbers are rounded to four digits.
        data_version: Training data, with its release.
        command: Command that started the run.
        repo_id: Repository that the adapter goes to; the code that loads it then names that, and not the folder.
    """
    folder = _adapter(folder)
    model = public_name(base_model)
    header = ModelCardData(
        base_model=model,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=_TAGS,
        license=licence_of(base_model),
        model_name=plain(title),
        eval_results=[
            EvalResult("text-generation", "rwml-gym", plain(data_version), plain(name), float(value))
            for name, value in metrics.items()
            if not isinstance(value, str) and math.isfinite(value)
        ],
    )
    results = {name: value if isinstance(value, str) else f"{value:.4g}" for name, value in metrics.items()}
    options = {name: _without_folder(str(value)) for name, value in flatten(config).items()}
    packages = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    text = _TEMPLATE.format(
        header=header.to_yaml(),
        title=plain(title),
        model=plain(model),
        package=our_name(),
        note=_note(base_model, model),
        data=plain(data_version),
        command=code(" ".join(command.split()), "sh"),
        config=table("option", options),
        metrics=table("result", results),
        use=code(_use(model, repo_id or folder.name), "python"),
        versions=", ".join(f"{name} {plain(value)}" for name, value in packages.items()),
    )
    adapter = read_json(folder / "adapter_config.json")
    write_json(folder / "adapter_config.json", {**adapter, "base_model_name_or_path": model})
    if is_sealed(folder):
        seal(folder, "adapter_config.json")
    ModelCard(text).save(folder / "README.md")


def push_adapter(folder: str | Path, repo_id: str, private: bool = True) -> str:
    """Upload a saved adapter with its card to a model hub, and return the address of the repository.

    Args:
        folder: Folder with an adapter of `learning.checkpoint.save_adapter`.
        repo_id: `OWNER/NAME`; the repository is created if it does not exist.
        private: Whether a new repository is private.

    Raises:
        HubError: If the hub cannot be reached or refuses, or there is no token; the message names the fix.
        InvalidConfigError: If no repository can have the name.
    """
    return upload(_adapter(folder), repo_id, "model", "the adapter with its card", private)


def _note(base_model: str, model: str) -> str:
    """Say where the base model comes from, if its name alone does not."""
    packaged = PACKAGED.get(model.rpartition("/")[2])
    if packaged is not None and not Path(base_model).is_dir():
        package, file = packaged
        return (
            f" It was trained on the weights of the Python package {plain(package.replace('_', '-'))} "
            f"({plain(file)}), a compressed form of the model of that name on the hub, which `load_model` takes where "
            "the package is installed."
        )
    if model != base_model:
        return " The base model was a folder of that name: put its place where the code below names it."
    return ""


def _adapter(folder: str | Path) -> Path:
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ModelNotFoundError(f"Expected an adapter of `save_adapter` in {str(folder)!r}, actual: none.")
    return folder


def _without_folder(value: str) -> str:
    """Return the last name of an absolute path, because the rest of it is private; other values do not change."""
    return Path(value).name if os.path.isabs(value) else value


def _use(model: str, name: str) -> str:
    return f"""from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({model!r}), {name!r})

# or, with rwml-gym, which knows packaged models too
from rwml_gym.agents.language.models import load_adapter, load_model

model, tokenizer = load_model({model!r})
model = load_adapter(model, {name!r})"""
