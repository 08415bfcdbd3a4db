# SPDX-License-Identifier: Apache-2.0
"""Fragments of the changelog: those there are, and what a release makes of them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
COLLECT = runpy.run_path(str(ROOT / "changes" / "collect.py"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "changes").mkdir()
    for name, text in {
        "README.md": "# Fragments\n",
        "10.added.md": "- Ten.\n",
        "9.added.md": "- Nine,\n  on two lines.\n",
        "9.fixed.2.md": "- A mistake.\n",
        "start.added.md": "- Without an issue.\n- And more.\n",
    }.items():
        (tmp_path / "changes" / name).write_text(text, "utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\nAbout it.\n", "utf-8")
    return tmp_path


def test_a_release_takes_all_fragments(tree: Path) -> None:
    COLLECT["main"](["0.1.0", "2026-12-01"], tree)
    first = (tree / "CHANGELOG.md").read_text("utf-8")
    assert first == (
        "# Changelog\n\nAbout it.\n\n## [0.1.0] - 2026-12-01\n\n### Added\n\n"
        "- Nine,\n  on two lines.\n- Ten.\n- Without an issue.\n- And more.\n\n"
        "### Fixed\n\n- A mistake.\n"
    )
    assert [path.name for path in (tree / "changes").iterdir()] == ["README.md"]

    (tree / "changes" / "11.removed.md").write_text("- Old names.\n", "utf-8")
    COLLECT["main"](["0.2.0", "2026-12-31"], tree)
    second = (tree / "CHANGELOG.md").read_text("utf-8")
    release = "## [0.2.0] - 2026-12-31\n\n### Removed\n\n- Old names.\n\n"
    assert second == first.replace("## [0.1.0]", f"{release}## [0.1.0]")


def test_a_dry_run_prints_and_changes_nothing(tree: Path, capsys: Any) -> None:
    COLLECT["main"](["0.1.0", "--dry-run"], tree)
    assert "### Fixed\n\n- A mistake." in capsys.readouterr().out
    assert len(list((tree / "changes").iterdir())) == 5
    assert (tree / "CHANGELOG.md").read_text("utf-8") == "# Changelog\n\nAbout it.\n"


def test_there_is_something_to_release(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "changes").mkdir()
    with pytest.raises(SystemExit):
        COLLECT["main"](["0.1.0"], tmp_path)
    assert "changes: got no fragments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("22.new.md", "- One.\n", "22.new.md: expected <issue>.<type>.md"),
        ("changed.md", "- One.\n", "changed.md: expected <issue>.<type>.md"),
        ("22.added.md", "One.\n", "22.added.md: expected list items"),
    ],
)
def test_fragments_are_named_and_written_alike(
    tree: Path, name: str, text: str, match: str
) -> None:
    (tree / "changes" / name).write_text(text, "utf-8")
    with pytest.raises(ValueError, match=match):
        COLLECT["find_fragments"](tree / "changes")


def test_the_fragments_there_are_can_be_released() -> None:
    paths = COLLECT["find_fragments"](ROOT / "changes")
    COLLECT["render_release"]("0.0.0", "2000-01-01", paths)
