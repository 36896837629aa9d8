"""The `rwml-gym` command: which subcommand the words ask for, and how its errors are told.

tyro parses every subcommand. The choice among them is made here, because tyro would build the parsers of all of them
first and names no nearest one for a mistyped word.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import rwml_gym
from rwml_gym.agents.cli.interrupts import exit_status, sigterm_raises
from rwml_gym.errors import DependencyNotInstalled, RWMLGymError
from rwml_gym.installed import install_command
from rwml_gym.terminal import escape_unknown, say

__all__ = ["main"]

# Command: what it does, and the function that takes the words after it; imported when it is asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "train rwml": ("train a language model as a world model (RWML stage 1), and report what it learnt", "train:rwml"),
    "train policy": ("train a language model to play (stage 2): GRPO on success and predictions", "train:policy"),
    "train sft": ("supervised fine-tuning: imitate actions, or learn the next states", "train:sft"),
    "evaluate": ("play an agent on a split: success with a 95 % interval, steps, invalid actions", "evaluate:evaluate"),
    "compare": ("compare two evaluations of the same games, paired by game and trial", "evaluate:compare"),
    "replay": ("play the actions of an evaluation again, and say where the world differs", "evaluate:replay"),
    "evaluate-world-model": (
        "what a world model predicts: one step, several steps ahead, and what is won inside it only",
        "evaluate_world_model:evaluate_world_model",
    ),
    "play": ("play a game yourself, and see what a model expected after each action", "play:play"),
    "envs": ("which environments there are, their splits and games, and what is not installed", "envs:envs"),
    "record": ("record transitions of a random player, for the next two commands", "data:record"),
    "calibrate": ("which threshold separates the same state from another, with precision and recall", "data:calibrate"),
    "audit": ("whether a reward can teach anything, before any training", "data:audit"),
    "check-env": ("which keys of info an environment gives, and what others would add", "check_env:check_env"),
    "report": ("one HTML page of evaluations and trainings: results, curves, every episode", "report:report"),
    "reproduce": ("run a table of the claims with seeds and placebos, and show it", "reproduce:reproduce"),
    "baselines tau2": ("how many tasks of τ²-bench are won without serving anyone", "evaluate:baselines_tau2"),
    "games export": ("write ALFWorld games as folders that alfworld itself finds and plays", "games:export"),
    "games list": ("print the names of ALFWorld games", "games:list_names"),
    "accelerate-config": ("where the settings of `accelerate launch` are", "about:accelerate_config"),
    "version": ("print the versions of this package, what it builds on, and the data (--json)", "about:version"),
}
# What the first word of an interrupted command means for what it has done.
GOES_ON = {
    "train": "The same command goes on from the last checkpoint.",
    "record": "The games played to their end are kept, and the same command plays the others.",
    "reproduce": "Finished runs are kept, and the same command goes on in the one that was interrupted.",
    "evaluate": "With --run-dir, finished episodes are kept, and the same command plays the others.",
}
# Library that an import misses -> extra of this package that installs it.
EXTRAS = {
    library: extra
    for extra, libraries in {
        "alfworld": "alfworld textworld fast_downward",
        "tau2": "tau2 rouge_score",
        "api": "litellm tenacity",
        "embed": "sentence_transformers",
        "endpoint": "openai",
        "inspect": "inspect_ai",
        "verifiers": "verifiers",
        "sb3": "stable_baselines3 sb3_contrib",
        "track": "tensorboard",
        "report": "matplotlib jinja2",
        "train": "accelerate datasets gguf huggingface_hub peft psutil pydantic pydantic_core safetensors torch "
        "transformers yaml",
    }.items()
    for library in libraries.split()
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; errors that name their fix are printed without a traceback.

    Args:
        arguments: The words after `rwml-gym`; those of the process if absent.

    Returns:
        Exit status: 0, 1 if a strict audit finds something, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    escape_unknown()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with sigterm_raises():
            return _main(words)
    except KeyboardInterrupt as error:
        say(f"Interrupted. {GOES_ON.get(' '.join(words[:1]), 'No file is half written.')}", file=sys.stderr)
        return exit_status(error)


def _main(words: list[str]) -> int:
    if os.getcwd() not in sys.path:  # where `--env module:Id-v0` is looked for last, as `python -m` does first
        sys.path.append(os.getcwd())
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # `rwml-gym … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        say(rwml_gym.__version__)
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        say(_usage())
        return 0
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
    if name is None:
        say(f"rwml-gym: {_unknown(words)}", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name][1].partition(":")
    try:
        command = getattr(importlib.import_module(f"rwml_gym.agents.cli.{module}"), function)
        return command(words[len(name.split()) :]) or 0
    except (RWMLGymError, DependencyNotInstalled) as error:
        say(f"rwml-gym: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        say(f"rwml-gym: This needs {library}: {install_command(EXTRAS[library])}", file=sys.stderr)
        return 2


def _usage() -> str:
    lines = [f"  {name:<20} {summary}" for name, (summary, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rwml-gym COMMAND …",
            "",
            "commands:",
            *lines,
            "",
            "`rwml-gym COMMAND --help` lists the options of a command, and the presets of a training.",
            "A training that is started again with the same options goes on where it was interrupted.",
        ]
    )


def _unknown(words: Sequence[str]) -> str:
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    asked, known = (" ".join(words[:2]), group) if group else (words[0], list(COMMANDS))
    near = difflib.get_close_matches(" ".join(words[:2]), known, 1) or difflib.get_close_matches(asked, known, 1, 0.5)
    near = near if len(words) > 1 or not group else []
    mean = f" Did you mean `rwml-gym {near[0]}`?" if near else ""
    return f"Expected a command, {', '.join(known)}, actual: {asked!r}.{mean} See `rwml-gym --help`."


if __name__ == "__main__":  # accelerate launch -m rwml_gym.agents.cli.main …
    sys.exit(main())
