# SPDX-License-Identifier: Apache-2.0
"""What docs/site_parts makes of the header, the notebooks and the pages."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import cintervene as ci

pytest.importorskip("sphinx")

ROOT = Path(__file__).parent.parent
HEADER = (ROOT / "csrc/include/cintervene.h").read_text("utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def part(name: str) -> ModuleType:
    """A module of docs/site_parts."""
    path = ROOT / "docs" / "site_parts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_header_is_read() -> None:
    about, sections = part("c_header").read_header(HEADER)
    assert about.startswith("cintervene: ")
    read = "\n".join(one.code for found in sections.values() for one in found)
    declared = re.compile(r"^(?:[a-z]\w* )+\*?(civ_\w+)\(|^} (civ_\w+);", re.M)
    assert len(declared.findall(HEADER)) > 40
    assert declared.findall(read) == declared.findall(HEADER)
    (margins,) = (
        one for one in sections["point-constrained regions"]
        if "civ_pcr_margins(" in one.code
    )  # fmt: skip
    assert margins.comment.startswith("out (m, n + k): distance")
    assert margins.code.endswith(";")


def test_a_comment_is_of_what_stands_below_it() -> None:
    text = """/* The whole. */
/* ---- part ---- */

/* Of both. */
int civ_one(void);
int civ_two(void);

int civ_three(int a,
              int b);
#endif
"""
    _, sections = part("c_header").read_header("/* Licence */\n" + text)
    assert [(one.comment, one.code) for one in sections["part"]] == [
        ("Of both.", "int civ_one(void);"),
        ("Of both.", "int civ_two(void);"),
        ("", "int civ_three(int a,\n              int b);"),
    ]


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_kept_outputs_are_of_the_present_cells(name: str) -> None:
    notebook = (ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8")
    text = part("page_text").with_outputs(notebook, ROOT, name)
    outputs = [
        one for cell in json.loads(text)["cells"] for one in cell.get("outputs", [])
    ]
    assert outputs
    assert {one["output_type"] for one in outputs} <= {"stream", "display_data"}
    assert not re.search(r"/(?:tmp|home|root)/", json.dumps(outputs))


def test_outputs_of_another_cell_are_refused() -> None:
    path = ROOT / "notebooks" / "raw_arrays.ipynb"
    changed = path.read_text("utf-8").replace("import numpy", "import numpy ", 1)
    with pytest.raises(ValueError, match="a cell has changed"):
        part("page_text").with_outputs(changed, ROOT, path.stem)


def test_comments_for_the_site_are_opened() -> None:
    source = ["Text.\n\n<!-- site\n```{toctree}\npage\n```\n-->\nMore.\n"]
    part("page_text").read_page(None, "docs/index", source)
    assert source == ["Text.\n\n```{toctree}\npage\n```\n\nMore.\n"]


def test_every_module_has_a_page() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(page.read_text("utf-8") for page in pages)
    named = set(re.findall(r"automodule:: cintervene\.(\w+)", text))
    assert named >= set(ci._MODULES)
