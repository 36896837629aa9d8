"""Model cards of trained adapters, and their upload to a model hub.

Titles, results and configurations are untrusted text, so all Markdown and HTML characters in them are escaped.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from rwml_gym.agents.config.files import flatten
from rwml_gym.agents.packaged import PACKAGED, public_name
from rwml_gym.errors import HubError, InvalidConfigError, ModelNotFoundError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import is_sealed, seal
from rwml_gym.hub import hub_resolves
from rwml_gym.installed import repository
from rwml_gym.text import printable

__all__ = ["push_adapter", "write_card"]

_TAGS = ["lora", "reinforcement-learning", "world-model", "rwml-gym"]
_PACKAGES = ("rwml-gym", "torch", "transformers", "peft", "accelerate")
_MARKUP = re.compile(r"[^\w \-.,/=+%]|(?<![^\W_])_|_(?![^\W_])")  # `max_steps` needs no escape
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
    """
    folder = _adapter(folder)
    model = public_name(base_model)
    header = ModelCardData(base_model=model, library_name="peft", pipeline_tag="text-generation", tags=_TAGS)
    results = {name: value if isinstance(value, str) else f"{value:.4g}" for name, value in metrics.items()}
    options = {name: _without_folder(str(value)) for name, value in flatten(config).items()}
    packages = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    text = _TEMPLATE.format(
        header=header.to_yaml(),
        title=_plain(title),
        model=_plain(model),
        package=f"[rwml-gym]({repository()})" if repository() else "rwml-gym",
        note=_note(base_model, model),
        data=_plain(data_version),
        command=_code(" ".join(command.split()), "sh"),
        config=_table("option", options),
        metrics=_table("result", results),
        use=_code(_use(model, folder.name), "python"),
        versions=", ".join(f"{name} {_plain(value)}" for name, value in packages.items()),
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
    """
    folder = _adapter(folder)
    later = f"The adapter stays in {str(folder)!r}. Upload it with `hf upload {repo_id} {folder}`."
    unreachable = f"Expected a reachable model hub, actual: {constants.ENDPOINT} cannot be reached:"
    if not hub_resolves():
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "its name does not resolve"
        raise HubError(f"{unreachable} {why}. {later}")
    if get_token() is None:
        raise HubError(
            f"Expected a token for {constants.ENDPOINT}, actual: none. Run `hf auth login`, or set HF_TOKEN to a token "
            "with write access."
        )
    hub = HfApi(endpoint=constants.ENDPOINT)
    try:
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload the adapter with its card")
    except HFValidationError as error:
        raise InvalidConfigError(f"Expected a repository OWNER/NAME, actual: {repo_id!r} ({error}).") from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())
        raise HubError(
            f"Expected write access to {repo_id!r}, actual: the model hub refused it ({reason}). Use a token that may "
            f"write there (`hf auth whoami`). {later}"
        ) from error
    except Exception as error:  # depends on the HTTP client of the hub library's release
        raise HubError(f"{unreachable} {error}. {later}") from error
    return str(address)


def _note(base_model: str, model: str) -> str:
    """Say where the base model comes from, if its name alone does not."""
    packaged = PACKAGED.get(model.rpartition("/")[2])
    if packaged is not None and not Path(base_model).is_dir():
        package, file = packaged
        return (
            f" It was trained on the weights of the Python package {_plain(package.replace('_', '-'))} "
            f"({_plain(file)}), a compressed form of the model of that name on the hub, which `load_model` takes where "
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


def _plain(text: str) -> str:
    """Return a text as one line, in which the characters of Markdown and HTML are entities."""
    words = " ".join(text.split()) or "-"
    line = "".join(character if character.isprintable() else "\ufffd" for character in words)
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def _code(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def _table(name: str, values: Mapping[str, str]) -> str:
    return "\n".join(
        [f"| {name} | value |", "| --- | --- |", *(f"| {_plain(k)} | {_plain(v)} |" for k, v in values.items())]
    )


def _use(model: str, name: str) -> str:
    return f"""from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({model!r}), {name!r})

# or, with rwml-gym, which knows packaged models too
from rwml_gym.agents.language.models import load_adapter, load_model

model, tokenizer = load_model({model!r})
model = load_adapter(model, {name!r})"""
