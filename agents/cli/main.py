"""The `rwml-gym` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import rwml_gym
from rwml_gym.errors import DependencyNotInstalled, InvalidConfigError, RWMLGymError

__all__ = ["main"]

Config = TypeVar("Config")

_USAGE = """usage: rwml-gym COMMAND …

commands:
  train rwml [--preset NAME | --config FILE] [--run-dir FOLDER] [--OPTION VALUE …]
              train a language model as a world model (RWML stage 1) and report what it learnt;
              started again with the same options, a run goes on where it was interrupted;
              a run's config.yaml is such a FILE, and repeats it in another FOLDER;
              on ALFWorld, or with --env tau2 [--domain NAME] on τ²-bench
  train policy [--preset NAME | --config FILE] [--run-dir FOLDER] [--adapter FOLDER] [--OPTION VALUE …]
              train a language model to play (stage 2) with GRPO on success, and on its predictions if wanted,
              from stage 1's adapter if given; goes on where it was interrupted
  train sft [--target actions|states] [--preset NAME | --config FILE] [--run-dir FOLDER] [--OPTION VALUE …]
              supervised fine-tuning: imitate an expert or recorded episodes, or learn next states word for word
  evaluate [--agent NAME] [--env alfworld|tau2] [--split NAME] [--OPTION VALUE …]
              play an agent (random, expert, a model with or without adapter, …) on a split: success with a
              95 % interval by task type or domain, steps, share of invalid actions
  record --out FOLDER [--env alfworld|tau2] [--domain NAME] [--games N] [--OPTION VALUE …]
              record transitions of a random player, for the two next commands
  calibrate DATA [--encoder NAME …] [--gap cosine|rouge …] [--precision 0.9] [--out FOLDER]
              which threshold separates the same state from another, with its precision and recall: for all
              transitions, each message role and each type of action
  audit DATA [--encoder NAME] [--threshold X] [--model NAME [--adapter FOLDER]] [--out FOLDER] [--strict]
              before any training: whether the reward can teach anything, in words, a table and a plot
  baselines tau2 [--domain NAME] [--split NAME]
              how many tasks of τ²-bench are won by saying goodbye, or transferring to a human, at once
  games export --out FOLDER [--split NAME] [--number N] [--OPTION VALUE …]
              write generated or official games as folders that alfworld itself finds and plays
  games list [--split NAME] [--number N] [--OPTION VALUE …]
              print the names of games
  version     the installed version

`rwml-gym train rwml --help` lists the presets and every option, `rwml-gym games export --help` how to choose games."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; errors that name their fix are printed without a traceback.

    Args:
        arguments: The words after `rwml-gym`; those of the process if absent.

    Returns:
        Exit status: 0, 2 for bad input, or 1 if a strict audit finds something.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["version"], ["--version"]):
        print(rwml_gym.__version__)
        return 0
    commands: dict[str, Callable[[list[str]], int | None]] = {
        "evaluate": _evaluate,
        "record": partial(_data_command, "record", "alfworld,tau2,train"),
        "calibrate": partial(_data_command, "calibrate", "train,report"),
        "audit": partial(_data_command, "audit", "train,report"),
        "train rwml": _train_rwml,
        "train policy": _train_policy,
        "train sft": _train_sft,
        "baselines tau2": _baselines_tau2,
        "games export": _games,
        "games list": _games,
    }
    command = commands.get(" ".join(words[:1]), commands.get(" ".join(words[:2])))
    if command is None:
        asked = not words or words[0] in ("-h", "--help", "help")
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        return command(words) or 0
    except (RWMLGymError, DependencyNotInstalled) as error:
        print(f"rwml-gym: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "The same command goes on from the last checkpoint."
        print(f"Interrupted. {goes_on if words[0] == 'train' else 'No game is half written.'}", file=sys.stderr)
        return 130


def _data_command(name: str, extras: str, words: list[str]) -> int:
    with _needs(extras):
        from rwml_gym.agents.cli import data as data_commands

        status: int = getattr(data_commands, f"run_{name}")(words[1:])
    return status


def _games(words: list[str]) -> None:
    from rwml_gym.agents.cli import games as commands

    commands.run(words[1:])


@contextmanager
def _needs(extras: str) -> Iterator[None]:
    """Says how to install what cannot be imported meanwhile."""
    try:
        yield
    except ImportError as error:
        raise DependencyNotInstalled(f'This needs {error.name}: pip install "rwml-gym[{extras}]"') from error


def _evaluate(words: list[str]) -> None:
    with _needs("alfworld,tau2,train"):
        import tyro

        from rwml_gym.agents.jobs.episodes import EvaluateConfig, evaluate, success_table
    config = tyro.cli(EvaluateConfig, args=words[1:], prog="rwml-gym evaluate")
    print(success_table(evaluate(config)))


def _baselines_tau2(words: list[str]) -> None:
    import tyro

    from rwml_gym.agents.jobs.success import score_baselines

    def baselines(domain: str = "retail", split: str = "base") -> None:
        """How many tasks of τ²-bench are won without serving anyone.

        Args:
            domain: airline, retail, telecom, telecom-workflow or mock.
            split: Such as base (what publications score on), train or test.
        """
        scores = score_baselines(domain, split)
        print(f"Tasks won, {domain} {split} ({scores['no-op'].data_version}):")
        print(f"  goodbye at once   {scores['no-op']}")
        print(f"  transfer at once  {scores['transfer']}")

    tyro.cli(baselines, args=words[2:], prog="rwml-gym baselines tau2")


def _train_rwml(words: list[str]) -> None:
    tau2 = _take(words, "--env", "alfworld")[0] == "tau2"
    with _needs(f"{'tau2' if tau2 else 'alfworld'},train,report"):
        from rwml_gym.agents.config.world_model import PRESETS, preset
        from rwml_gym.agents.jobs.world_model import run

        description = _described("RWML stage 1", PRESETS, "demo, or demo-tau2 with --env tau2")
        config, folder = _configure(words, preset, "demo-tau2" if tau2 else "demo", description)
    run(config, folder)


def _train_policy(words: list[str]) -> None:
    with _needs("alfworld,tau2,train,report"):
        from rwml_gym.agents.config.policy import POLICY_PRESETS, policy_preset
        from rwml_gym.agents.jobs.policy import run_policy

        description = _described("Policy training", POLICY_PRESETS)
        config, folder = _configure(words, policy_preset, "demo", description, "policy-")
    run_policy(config, folder)


def _train_sft(words: list[str]) -> None:
    with _needs("alfworld,tau2,train,report"):
        from rwml_gym.agents.jobs.sft import SFT_PRESETS, run_sft, sft_preset

        description = _described("Supervised fine-tuning", SFT_PRESETS)
        config, folder = _configure(words, sft_preset, "demo", description, "sft-")
    run_sft(config, folder)


def _described(title: str, presets: Iterable[str], default: str = "demo") -> str:
    return (
        f"{title}. Presets: {', '.join(presets)} (--preset, default {default}). Instead of a preset, a YAML file of "
        "options (--config), such as a run's config.yaml. Results go to --run-dir."
    )


def _configure(
    words: list[str], preset: Callable[[str], Config], default: str, description: str, prefix: str = ""
) -> tuple[Config, str]:
    """A training command's configuration, and the folder of its run.

    Args:
        words: The command's two words and its options: `--preset` or `--config` say what the others change.
        preset: A configuration by name.
        default: The preset where none is asked for.
        description: For `--help`.
        prefix: Of the name of the run's folder.

    Returns:
        The configuration; `--run-dir`, or a folder that is named after the preset or the file.
    """
    import tyro

    from rwml_gym.agents.config.files import load_config

    name, rest = _take(words[2:], "--preset", "")
    file, rest = _take(rest, "--config", "")
    folder, rest = _take(rest, "--run-dir", f"runs/{prefix}{Path(file).stem if file else name or default}")
    if name and file:
        raise InvalidConfigError("Expected --preset or --config, actual both; options change single values of either.")
    start = preset(name or default)
    if file:
        start = load_config(type(start), file)
    prog = f"rwml-gym {' '.join(words[:2])}"
    return tyro.cli(type(start), args=rest, default=start, prog=prog, description=description), folder


def _take(words: list[str], option: str, default: str) -> tuple[str, list[str]]:
    """The last value of an option that is read before the others, and the words without it."""
    value, rest, position = default, [], 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == option and position < len(words):
            value = words[position]
            position += 1
        elif word.startswith(option + "="):
            value = word.removeprefix(option + "=")
        else:
            rest.append(word)
    return value, rest


if __name__ == "__main__":  # accelerate launch -m rwml_gym.agents.cli.main …
    sys.exit(main())
