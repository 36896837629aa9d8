"""Model cards of trained adapters, and their way to a model hub.

Titles, results and configurations come from anywhere, so none of their characters is taken for Markdown or HTML.
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
from rwml_gym.errors import HubError, InvalidConfigError, ModelNotFoundError
from rwml_gym.files import read_json, write_json
from rwml_gym.hub import hub_resolves

__all__ = ["push_adapter", "write_card"]

_TAGS = ["lora", "reinforcement-learning", "world-model", "rwml-gym"]
_PACKAGES = ("rwml-gym", "torch", "transformers", "peft", "accelerate")
_MARKUP = re.compile(r"[^\w \-.,/=+%]|(?<![^\W_])_|_(?![^\W_])")  # `max_steps` is none
_TEMPLATE = """---
{header}
---

# {title}

A LoRA adapter of {model}, trained with [rwml-gym](https://pypi.org/project/rwml-gym/).

## Trained on

Data: {data}

## Trained how

{command}

<details><summary>Configuration</summary>

{config}

</details>

## Results

{metrics}

They are of one run with one seed, on the data named above, and say nothing about other worlds.

## Use

{use}

## Versions

{versions}

## Limits

The adapter works with this base model only, and shares its limits and licence terms. It was trained on text worlds;
what it says elsewhere, about the real world above all, is not to be relied on.
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
    """Writes a model card into the folder of a saved adapter, in the place of PEFT's empty one.

    The adapter's own configuration names the same base model afterwards: PEFT puts the folder there that it was
    loaded from.

    Args:
        folder: Where `save_adapter` saved.
        base_model: The language model as it was given: a hub id, a packaged name or a folder, of which the card holds
            the last name only.
        title: Its heading.
        config: The run's configuration, a dataclass.
        metrics: Results by name; numbers are rounded to four digits.
        data_version: What it was trained on, with the release.
        command: What was typed.

    Raises:
        ModelNotFoundError: There is no adapter in the folder.
    """
    folder = _adapter(folder)
    model = Path(base_model).name if Path(base_model).is_dir() else base_model
    header = ModelCardData(base_model=model, library_name="peft", pipeline_tag="text-generation", tags=_TAGS)
    results = {name: value if isinstance(value, str) else f"{value:.4g}" for name, value in metrics.items()}
    options = {name: _without_folder(str(value)) for name, value in flatten(config).items()}
    packages = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    text = _TEMPLATE.format(
        header=header.to_yaml(),
        title=_plain(title),
        model=_plain(model),
        data=_plain(data_version),
        command=_code(" ".join(command.split()), "sh"),
        config=_table("option", options),
        metrics=_table("result", results),
        use=_code(_use(model, folder.name), "python"),
        versions=", ".join(f"{name} {_plain(value)}" for name, value in packages.items()),
    )
    adapter = read_json(folder / "adapter_config.json")
    write_json(folder / "adapter_config.json", {**adapter, "base_model_name_or_path": model})
    ModelCard(text).save(folder / "README.md")


def push_adapter(folder: str | Path, repo_id: str, private: bool = True) -> str:
    """Uploads a saved adapter with its card to a model hub; the repository is made if there is none.

    Args:
        folder: Where `save_adapter` saved.
        repo_id: `OWNER/NAME`.
        private: Whether a new repository is for its owner only.

    Returns:
        Its address.

    Raises:
        ModelNotFoundError: There is no adapter in the folder.
        InvalidConfigError: Not a name that a repository can have.
        HubError: No hub, no token, or the hub refuses; the message says what to do.
    """
    folder = _adapter(folder)
    later = f"The adapter stays in {str(folder)!r}; `hf upload {repo_id} {folder}` uploads it too."
    if not hub_resolves():
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "its name is not known here"
        raise HubError(f"The model hub {constants.ENDPOINT} cannot be reached: {why}. {later}")
    if get_token() is None:
        raise HubError(f"No token for {constants.ENDPOINT}: `hf auth login`, or set HF_TOKEN to one that may write.")
    hub = HfApi(endpoint=constants.ENDPOINT)
    try:
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload the adapter with its card")
    except HFValidationError as error:
        raise InvalidConfigError(f"Expected a repository as OWNER/NAME, actual {repo_id!r}: {error}") from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())
        raise HubError(
            f"The model hub refused {repo_id!r}: {reason} The token (`hf auth whoami`) must be allowed to write there. "
            f"{later}"
        ) from error
    except Exception as error:  # of whichever HTTP client the hub's library uses in this release
        raise HubError(f"The model hub {constants.ENDPOINT} cannot be reached: {error}. {later}") from error
    return str(address)


def _adapter(folder: str | Path) -> Path:
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ModelNotFoundError(f"No adapter in {str(folder)!r}: expected what `save_adapter` writes there.")
    return folder


def _without_folder(value: str) -> str:
    """The last name of a folder of this machine, whose others are nobody else's business; other values as they are."""
    return Path(value).name if os.path.isabs(value) else value


def _plain(text: str) -> str:
    """A text for the middle of a line, with entities for whatever Markdown or HTML could take for its own there."""
    words = " ".join(text.split()) or "-"
    line = "".join(character if character.isprintable() else "\ufffd" for character in words)
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def _code(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


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
