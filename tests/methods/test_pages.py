# SPDX-License-Identifier: Apache-2.0
"""Pages of methods and the code name each other rightly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    path.stem: path.read_text("utf-8") for path in (ROOT / "docs/methods").iterdir()
}
CODE = {
    path: path.read_text("utf-8")
    for path in sorted((ROOT / "cintervene").rglob("*.py"))
}
ALL_CODE = "\n".join(CODE.values())
# "docs/methods/tsr.md (4)", "docs/methods/arr.md (2) and (3)", perhaps on two lines.
CITED = re.compile(r"docs/methods/(\w+)\.md((?:(?:\s|and|to|,)*\(\d+\))*)")


def cited() -> list[tuple[str, str]]:
    """Each page and number of a formula that the code names."""
    found = []
    for page, numbers in CITED.findall(ALL_CODE):
        found += [(page, number) for number in re.findall(r"\d+", numbers)]
    return found


def test_formulas_that_the_code_names_are_on_their_page() -> None:
    assert len(cited()) > 5
    for page, number in cited():
        if page in PAGES:
            assert rf"\tag{{{number}}}" in PAGES[page], f"{page}.md ({number})"


METHODS = ["pcr", "tsr", "arr", "gate", "guard"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_a_folder_a_page_and_an_example(method: str) -> None:
    folder = ROOT / "cintervene/methods" / method
    assert {"__init__.py", "config.py", "method.py"} <= {
        p.name for p in folder.iterdir()
    }
    assert method in PAGES
    assert (ROOT / f"examples/{method}.py").exists()


@pytest.mark.parametrize("page", [*METHODS, "linear_heads"])
def test_names_in_tables_of_symbols_are_those_of_the_code(page: str) -> None:
    rows = [line for line in PAGES[page].splitlines() if line.startswith("| ")]
    names = [name for row in rows for name in re.findall(r"`([\w./]+)`", row)]
    assert names
    for name in names:
        if "/" in name:
            places = (ROOT / "cintervene" / name, ROOT / name)
            assert any(place.exists() for place in places), name
        else:
            for part in name.removeprefix("ci.").split("."):
                assert re.search(rf"\b{part}\b", ALL_CODE), name


@pytest.mark.parametrize("page", METHODS)
def test_formulas_are_numbered_without_a_gap(page: str) -> None:
    numbers = [int(n) for n in re.findall(r"\\tag\{(\d+)\}", PAGES[page])]
    assert numbers == [*range(1, len(numbers) + 1)]


@pytest.mark.parametrize("page", [*METHODS, "linear_heads"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page]):
        if not target.startswith("http"):
            assert (ROOT / "docs" / "methods" / target).exists(), target
