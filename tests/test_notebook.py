"""The tour runs from its first cell to its last, and is committed with its results."""

from __future__ import annotations

import pytest

from tests.helpers.paths import ROOT

TOUR = ROOT / "examples" / "tour.ipynb"

nbformat = pytest.importorskip("nbformat", reason="needs `pip install nbclient nbformat ipykernel`")


@pytest.fixture
def tour():
    return nbformat.read(TOUR, as_version=4)


def test_it_is_committed_with_its_results(tour):
    nbformat.validate(tour)
    cells = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert TOUR.stat().st_size < 200_000


def test_it_is_short_and_can_be_read(tour):
    lines = [line for cell in tour.cells for line in cell.source.splitlines()]
    assert len(lines) <= 170
    assert max(map(len, lines)) <= 130
    written = TOUR.read_text("utf-8")
    assert "/home/" not in written
    assert "/tmp/" not in written


@pytest.mark.slow
def test_it_runs(tour, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("peft")
    nbclient.NotebookClient(tour, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.text for cell in tour.cells if cell.cell_type == "code" for output in cell.outputs if "text" in output
    )
    for words in ("gap ", "threshold ", "predicted: ", "continuous rewards", "grad_norm"):
        assert words in printed
    assert list(tmp_path.iterdir()) == []
