"""What is saved is what is loaded; whatever else a file holds is refused with the key and the fix."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rwml_gym.agents.config.files import flatten, load_config, save_config
from rwml_gym.agents.config.world_model import PRESETS, RWMLConfig
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.errors import InvalidConfigError


@dataclass(frozen=True)
class _Inner:
    rate: float = 1e-4
    names: tuple[str, ...] | None = None
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class _Outer:
    text: str
    number: int = 3
    flag: bool = False
    limit: float | None = None
    inner: _Inner = field(default_factory=_Inner)
    maybe: _Inner | None = None

    def __post_init__(self) -> None:
        if self.number < 0:
            raise InvalidConfigError(f"Expected number of at least 0, actual: {self.number}")


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_INNERS = st.builds(_Inner, _FLOATS, st.none() | st.lists(st.text(), max_size=3).map(tuple), st.sampled_from("ab"))
_OUTERS = st.builds(
    _Outer, st.text(), st.integers(0, 2**40), st.booleans(), st.none() | _FLOATS, _INNERS, st.none() | _INNERS
)


def _load(folder: Path, text: str, cls: type = _Outer):
    path = folder / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(cls, path)


def _refused(folder: Path, text: str, cls: type = _Outer) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        _load(folder, text, cls)
    assert str(folder / "some.yaml") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back(tmp_path, name):
    save_config(PRESETS[name], tmp_path / "config.yaml")
    assert load_config(RWMLConfig, tmp_path / "config.yaml") == PRESETS[name]


@pytest.mark.long
@given(_OUTERS)
@example(_Outer("1e5", limit=1e22))
@example(_Outer("\x85"))
@example(_Outer(" \u2028 \n\t\r\n " * 40))
@example(_Outer("yes", inner=_Inner(names=("null", "~", "1_0", "0x1", "2020-01-01", "<<", "=", "\x85\ufeff"))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_configuration_comes_back(tmp_path, config):
    save_config(config, tmp_path / "config.yaml")
    loaded = load_config(_Outer, tmp_path / "config.yaml")
    assert loaded == config
    assert repr(loaded) == repr(config)  # types too: 1 == 1.0 == True


def test_what_is_left_out_has_its_default(tmp_path):
    assert _load(tmp_path, "text: x\ninner: {kind: b}\n") == _Outer("x", inner=_Inner(kind="b"))
    assert _load(tmp_path, "# nothing yet\n", RWMLConfig) == RWMLConfig()


@pytest.mark.parametrize("written", ["1e-4", "1.0e-04", "0.0001", "+1E-4", ".1e-3"])
def test_numbers_are_read_as_anyone_would_write_them(tmp_path, written):
    assert _load(tmp_path, f"text: x\ninner: {{rate: {written}}}\n").inner.rate == 1e-4
    assert _load(tmp_path, "text: x\nlimit: 2\n").limit == 2


def test_a_saved_file_is_read_by_people(tmp_path):
    save_config(PRESETS["demo"], tmp_path / "config.yaml")
    lines = (tmp_path / "config.yaml").read_text().splitlines()
    assert lines[0] == "env: alfworld"
    assert "  random_share: 0.75" in lines
    save_config(_Outer("größer", inner=_Inner(names=("a",))), tmp_path / "config.yaml")
    assert "text: größer" in (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("text: x\nnumbr: 4", ["numbr: unknown key; did you mean 'number'?"]),
        ("text: x\ninner: {rates: 4}", ["inner.rates: unknown key; did you mean 'rate'?"]),
        ("text: x\nmaybe: {nams: [a]}", ["maybe.nams: unknown key; did you mean 'names'?"]),
        ("text: x\nzzz: 4", ["zzz: unknown key; expected among ['text', 'number'"]),
        ("text: x\nnumber: '4'", ["number: expected a valid integer, actual: '4'"]),
        ("text: x\nnumber: true", ["number: expected a valid integer, actual: True"]),
        ("text: x\nnumber: 4.5", ["number: expected a valid integer, actual: 4.5"]),
        ("text: 7", ["text: expected a valid string, actual: 7"]),
        ("text: x\nflag: 1", ["flag: expected a valid boolean, actual: 1"]),
        ("text: x\ninner: {rate: fast}", ["inner.rate: expected a valid number, actual: 'fast'"]),
        ("text: x\ninner: {kind: c}", ["inner.kind: expected 'a' or 'b', actual: 'c'"]),
        ("text: x\ninner: {names: [a, 2]}", ["inner.names.1: expected a valid string, actual: 2"]),
        ("text: x\ninner: {names: abc}", ["inner.names: expected a valid", "actual: 'abc'"]),
        ("text: x\ninner: 5", ["inner: expected keys with values, actual: 5"]),
        ("text: x\ninner:\n", ["inner: expected keys with values, actual: None"]),
        ("[1, 2]", ["the file: expected keys with values, actual: [1, 2]"]),
        ("number: 4", ["text: expected a value, actual: none"]),
        ("text: x\nnumber: -4", ["the file: Expected number of at least 0, actual: -4"]),
        ("text: 1\nnumber: x", ["text: expected", "number: expected"]),
        (f"text: x\nnumber: {'9a' * 5000}", ["number: expected a valid integer, actual: '9a9a9a"]),
    ],
)
def test_what_does_not_fit_is_named_with_its_key(tmp_path, text, parts):
    message = _refused(tmp_path, text)
    assert all(part in message for part in parts), message
    assert len(message) < 500


def test_what_a_nested_configuration_says_is_passed_on(tmp_path):
    message = _refused(tmp_path, "grpo: {iterations: 0}", RWMLConfig)
    assert "grpo: Expected `iterations` of at least 1, actual: 0" in message
    assert "did you mean 'loss_type'" in _refused(tmp_path, "loss_typ: dapo", GRPOConfig)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("text: !!python/object/apply:os.system ['touch hacked']", "python/object"),
        ("text: !!python/name:os.system ''", "python/name"),
        ("text: &a x\nmaybe: *a", "alias"),
        ("number: !!int '3'", "tag"),
        ("text: !!binary aGk=", "tag"),
        ("text: !!str 3", "tag"),
        ("text: ! x", "tag"),
        ("inner: !!map {kind: a}", "tag"),
        ("number: 1:30:00", "1:30:00"),
        ("limit: 1:30.5", "1:30.5"),
        ("text: 1:30", "quote"),
        ("number: 010", "010"),
        ("text: x\ntext: y", "twice"),
        ("text: x\ninner: {kind: a, kind: b}", "twice"),
        ("text: [", "expected the node content"),
        ("text: x\n---\ntext: y", "document"),
        ("text: x\x00", "not allowed"),
        ("[" * 5000, "recursion"),
        ("? [1]\n: x", "unhashable"),
    ],
)
def test_anything_but_plain_yaml_is_refused(tmp_path, monkeypatch, text, reason):
    monkeypatch.chdir(tmp_path)
    message = _refused(tmp_path, text)
    assert "plain YAML" in message
    assert reason in message
    assert not (tmp_path / "hacked").exists()


def test_files_that_cannot_be_one_are_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match=r"nowhere.yaml'.*No such file"):
        load_config(_Outer, tmp_path / "nowhere.yaml")
    with pytest.raises(InvalidConfigError, match="Is a directory"):
        load_config(_Outer, tmp_path)
    assert "at most 65,536 bytes" in _refused(tmp_path, "#" * 70_000)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InvalidConfigError, match="plain YAML"):
        load_config(_Outer, tmp_path / "binary.yaml")


def test_a_preset_that_is_written_has_every_field(tmp_path):
    import yaml

    save_config(PRESETS["smoke"], tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert list(written) == [f.name for f in dataclasses.fields(RWMLConfig)]


def test_flat_values_are_numbers_and_texts():
    config = _Outer("x", flag=True, inner=_Inner(names=("a",)), maybe=_Inner(kind="b"))
    assert flatten(config) == {
        "text": "x",
        "number": 3,
        "flag": True,
        "limit": "None",
        **{"inner.rate": 1e-4, "inner.names": "('a',)", "inner.kind": "a"},
        **{"maybe.rate": 1e-4, "maybe.names": "None", "maybe.kind": "b"},
    }
