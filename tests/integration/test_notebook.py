"""The notebook of the examples runs from its first cell to its last, in a real kernel."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from rankmill.settings import CHECKOUT

NOTEBOOK = CHECKOUT / "examples" / "rerank.ipynb"


def outputs(notebook: Any) -> list[dict[str, Any]]:
    """Return the data of what the cells show."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [each["data"] for cell in cells for each in cell.outputs if "data" in each]


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.filterwarnings("default")  # of ZeroMQ's sockets, which close late
def test_the_notebook_reranks_measures_and_plots(
    notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = outputs(notebook)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=240, resources=resources).execute()
    found = outputs(notebook)
    assert [each.keys() for each in found] == [each.keys() for each in stored]
    assert sum("image/png" in each for each in found) == 1
    before_and_after, gains = (each["text/plain"] for each in found[2:4])
    assert before_and_after.splitlines()[1].split() == ["1", "python3-pyodc", "libfdb5-dev"]
    before, after = map(float, gains.splitlines()[2].split()[1:3])
    assert gains.splitlines()[2].startswith("nDCG@10") and after > before + 0.02
