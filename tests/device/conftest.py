# SPDX-License-Identifier: Apache-2.0
"""Tests on a pretended accelerator, in a process of their own.

torch counts its devices when it first differentiates, and libraries ask it for
accelerators all the time. So the device is registered in one process in which nothing
else is tested: the tests of this folder run there, and are reported here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

# Where the other process writes what came of its tests; set in that process only.
REPORTS = os.environ.get("CINTERVENE_FAKEGPU_REPORTS", "")
HERE = Path(__file__).parent
OUTCOMES = pytest.StashKey[dict[str, list[Any]]]()

if REPORTS:
    from support import fakegpu

    fakegpu.register()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("g++") is None:
        mine = [item for item in items if HERE in item.path.parents]
        for item in mine:
            item.add_marker(pytest.mark.skip(reason="needs g++"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the other process, hand over what came of a test."""
    if REPORTS:
        with open(REPORTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(report._to_json()) + "\n")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: Any) -> bool | None:
    """In the first process, report what came of a test in the other."""
    del nextitem
    if REPORTS or item.get_closest_marker("skip"):
        return None
    stash = item.config.stash
    if OUTCOMES not in stash:
        mine = [one for one in item.session.items if HERE in one.path.parents]
        stash[OUTCOMES] = _run(item.config, [one.nodeid for one in mine])
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in stash[OUTCOMES][item.nodeid]:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _run(config: pytest.Config, tests: Sequence[str]) -> dict[str, list[Any]]:
    """What came of all tests of this folder that were asked for."""
    reports = config.rootpath / "build" / f"fakegpu-{os.getpid()}.jsonl"
    reports.parent.mkdir(exist_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=config.rootpath, capture_output=True, text=True, check=False,
            env={**os.environ, "CINTERVENE_FAKEGPU_REPORTS": str(reports)},
        )  # fmt: skip
        outcomes: dict[str, list[Any]] = {test: [] for test in tests}
        for report in _read(reports):
            outcomes[report.nodeid].append(report)
    finally:
        reports.unlink(missing_ok=True)
    lost = [test for test, found in outcomes.items() if not found]
    assert not lost, (
        f"no outcome of {lost}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    )
    return outcomes


def _read(reports: Path) -> Iterator[pytest.TestReport]:
    if reports.exists():
        for line in reports.read_text("utf-8").splitlines():
            yield pytest.TestReport._from_json(json.loads(line))
