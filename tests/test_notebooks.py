# SPDX-License-Identifier: Apache-2.0
"""The notebooks run from top to bottom, and show what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
def test_forbid_a_vocabulary() -> None:
    notebook = nbformat.read(NOTEBOOKS / "forbid_a_vocabulary.ipynb", as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    for line in (
        "exact.certified = True",
        "<- chosen",
        "Forbidden words (5)",
        "as before, to the bit: True",
    ):
        assert line in text
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_outputs_are_not_stored() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert [cell for cell in notebook.cells if cell.get("outputs")] == []
