"""The notebooks of docs/notebooks run from their first cell to their last, on fewer steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.documentation,
    pytest.mark.timeout(400),
]

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs" / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"NUM_STEPS = [\d_]+", "NUM_STEPS = 3_000", cell.source)

    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert all(output.output_type != "error" for output in outputs)
    if path.stem == "train_and_watch":
        assert any("image/png" in output.get("data", {}) for output in outputs)
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs"), "notebooks are kept without outputs"
