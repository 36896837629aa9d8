"""The examples in docstrings run as they stand, from what is installed."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.test_import_graph import MODULES

WITH_EXAMPLES = [name for name, path in MODULES.items() if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"needs {error.name}")
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed, "pytest shows the difference above"


def test_no_example_needs_what_is_not_installed():
    sources = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    assert not [name for name, source in sources.items() if ">>> from tests" in source]
