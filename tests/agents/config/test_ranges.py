"""Numbers that make no sense are refused where they are written down: in Python, in a file, on the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
import tyro

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.config.files import load_config
from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.errors import InvalidConfigError

CONFIGS = (EvaluateConfig, PolicyConfig, RWMLConfig, SFTJobConfig)


def numbers(cls: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all numbers in a configuration."""
    for name, hint in get_type_hints(cls).items():
        kinds = {hint, *get_args(hint)}
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, (*path, name))
        elif kinds & {int, float} and tuple not in {getattr(kind, "__origin__", None) for kind in kinds}:
            yield (*path, name)


FIELDS = [(cls, path) for cls in CONFIGS for path in numbers(cls)]


def change(cls: type, path: tuple[str, ...], value: Any) -> Any:
    """A configuration with one number changed, all others at their defaults."""
    config = cls()
    for part in path[:-1]:
        config = getattr(config, part)
    changed = dataclasses.replace(config, **{path[-1]: value})
    for depth in range(len(path) - 2, -1, -1):
        owner = cls()
        for part in path[:depth]:
            owner = getattr(owner, part)
        changed = dataclasses.replace(owner, **{path[depth]: changed})
    return changed


def hint(cls: type, path: tuple[str, ...]) -> Any:
    for part in path:
        cls = get_type_hints(cls)[part]
    return cls


def ids(value: Any) -> str:
    return ".".join(value) if isinstance(value, tuple) else value.__name__


def test_all_numbers_are_found():
    assert len(FIELDS) > 80
    assert (PolicyConfig, ("stage", "threshold")) in FIELDS


@pytest.mark.parametrize(("cls", "path"), FIELDS, ids=ids)
def test_no_number_may_be_far_below_its_range_or_none_at_all(cls, path):
    for value in (-(10**9), math.nan, -math.inf):
        with pytest.raises(InvalidConfigError, match=rf"{path[-1]}\b"):
            change(cls, path, value)


@pytest.mark.parametrize(("cls", "path"), FIELDS, ids=ids)
def test_no_number_is_infinite(cls, path):
    with pytest.raises(InvalidConfigError, match=rf"{path[-1]}\b"):
        change(cls, path, math.inf)


@pytest.mark.parametrize(("cls", "path"), FIELDS, ids=ids)
def test_a_file_is_refused_with_the_name_of_the_field(cls, path, tmp_path):
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(path)]
    (tmp_path / "c.yaml").write_text("\n".join(lines) + " -1000000000\n")
    with pytest.raises(InvalidConfigError, match=rf"(?s)c\.yaml.*{path[-1]}"):
        load_config(cls, tmp_path / "c.yaml")


@pytest.mark.long
@pytest.mark.parametrize(("cls", "path"), FIELDS, ids=ids)
def test_so_is_the_command_line(cls, path, capsys):
    option = "--" + ".".join(path).replace("_", "-")
    value = "nan" if float in {hint(cls, path), *get_args(hint(cls, path))} else "-3"
    with pytest.raises(SystemExit) as exit_:
        tyro.cli(cls, args=[option, value], prog="x")
    assert exit_.value.code == 2
    out = " ".join(" ".join(capsys.readouterr()).replace("│", " ").split())
    assert path[-1] in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"episodes": 0}, "episodes of at least 1, actual: 0"),
        ({"episodes": -3}, "episodes of at least 1, actual: -3"),
        ({"max_steps": 0}, "max_steps of at least 1, actual: 0"),
        ({"temperature": math.inf}, "a finite temperature"),
        ({"agent": "random", "adapter": "runs/x"}, "agent 'model'"),
    ],
)
def test_an_evaluation_of_nothing_is_refused(changes, match):
    with pytest.raises(InvalidConfigError, match=match):
        EvaluateConfig(**changes)


@pytest.mark.parametrize(("path", "value"), [(("stage", "threshold"), 2.5), (("stage", "tool_threshold"), 1.5)])
def test_a_threshold_beyond_the_distance_is_refused(path, value):
    with pytest.raises(InvalidConfigError, match="threshold above 0 and at most"):
        change(PolicyConfig, path, value)
