"""The model hub and its libraries: check that the hub can be reached, upload, and load without progress bars."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from rwml_gym.checks import require
from rwml_gym.errors import HubError, InvalidConfigError

__all__ = ["check_repository", "hub_resolves", "upload", "without_progress_bars"]


def hub_resolves() -> bool:
    """Return whether the model hub may be used and its name resolves (or a proxy resolves it)."""
    from huggingface_hub import constants  # not needed to import this package

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return not constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def check_repository(repo_id: str) -> None:
    """Raise `InvalidConfigError` unless a repository can have this name, `OWNER/NAME`."""
    require("huggingface_hub", "huggingface-hub to share data and models", "train")
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InvalidConfigError(f"Expected a repository OWNER/NAME, actual: {repo_id!r} ({error}).") from error


def upload(folder: Path, repo_id: str, kind: Literal["model", "dataset"], what: str, private: bool = True) -> str:
    """Upload a folder to a repository of the hub, and return its address.

    Args:
        folder: The folder; all of its files are uploaded.
        repo_id: `OWNER/NAME`; the repository is created if it does not exist.
        kind: The kind of the repository.
        what: What the folder holds, for the message of the commit.
        private: Whether a new repository is private.

    Raises:
        HubError: If the hub cannot be reached or refuses, or there is no token; the message names the fix.
        InvalidConfigError: If no repository can have the name.
    """
    check_repository(repo_id)
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    by_hand = f"hf upload {repo_id} {folder}{' --repo-type dataset' if kind == 'dataset' else ''}"
    later = f"What was to be uploaded stays in {str(folder)!r}. Upload it with `{by_hand}`."
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
        address = hub.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind)
        hub.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=kind, commit_message=f"Upload {what}")
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())
        raise HubError(
            f"Expected write access to {repo_id!r}, actual: the model hub refused it ({reason}). Use a token that may "
            f"write there (`hf auth whoami`). {later}"
        ) from error
    except Exception as error:  # depends on the HTTP client of the hub library's release
        raise HubError(f"{unreachable} {error}. {later}") from error
    return str(address)


@contextmanager
def without_progress_bars(logging: Any) -> Iterator[None]:
    """Disable the progress bars of a Hugging Face library within the context, and restore them afterwards.

    Args:
        logging: The library's logging module, `transformers.utils.logging` or `datasets.utils.logging`.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
