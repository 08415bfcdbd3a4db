# SPDX-License-Identifier: Apache-2.0
"""Every table of benchmarks/RESULTS.md has a date and a command that makes it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
PARTS = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S))
FENCE = re.compile(r"^```\n(.*?)^```$", re.M | re.S)


def commands(text: str) -> list[str]:
    """The commands of a part, those of several lines in one."""
    return [
        line
        for block in FENCE.findall(text)
        for line in re.sub(r"\n +", " ", block).splitlines()
    ]


def test_tables_are_in_parts() -> None:
    assert len(PARTS) > 30
    before = TEXT[: TEXT.index("\n### ")]
    assert not re.search(r"^\| ---", before, re.M)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_a_date(name: str) -> None:
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", FENCE.sub("", PARTS[name]))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_a_command_that_there_is(name: str) -> None:
    """What it calls is a file or the package's command, with options it knows."""
    given = commands(PARTS[name])
    assert given
    for command in given:
        script = re.search(r"\b(?:benchmarks/\w+\.py|docs/demo)\b", command)
        if script is None:
            assert command.startswith(("cintervene ", "git worktree add "))
            continue
        source = (ROOT / script[0]).read_text("utf-8")
        for option in re.findall(r" (--[\w-]+)", command):
            assert f'"{option}"' in source, option
