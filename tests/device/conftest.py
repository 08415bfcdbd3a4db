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
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:xdist")
OUTCOMES = pytest.StashKey[dict[str, list[Any]]]()

if REPORTS:
    from support import fakegpu

    fakegpu.register()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("g++") is None:
        for item in _mine(items):
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
    if REPORTS or not _mine([item]) or item.get_closest_marker("skip"):
        return None
    stash = item.config.stash
    outcomes = stash.setdefault(OUTCOMES, {})
    if item.nodeid not in outcomes:
        # File by file, for several processes may share the files of tests.
        beside = [one for one in item.session.items if one.path == item.path]
        outcomes |= _run(item.config, beside)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in outcomes[item.nodeid]:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _mine(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Those of this folder."""
    return [item for item in items if HERE in item.path.parents]


def _run(config: pytest.Config, items: Sequence[pytest.Item]) -> dict[str, list[Any]]:
    """What came of tests of this folder, by their names."""
    reports = config.rootpath / "build" / f"fakegpu-{os.getpid()}.jsonl"
    reports.parent.mkdir(exist_ok=True)
    tests = [item.nodeid for item in items]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *WITHOUT, *tests],
            cwd=config.rootpath, capture_output=True, text=True, check=False,
            env={**os.environ, "CINTERVENE_FAKEGPU_REPORTS": str(reports)},
        )  # fmt: skip
        outcomes: dict[str, list[Any]] = {test: [] for test in tests}
        for report in _read(reports):
            outcomes[report.nodeid].append(report)
    finally:
        reports.unlink(missing_ok=True)
    said = (done.stdout + done.stderr)[-8000:]
    for item in items:
        if not outcomes[item.nodeid]:
            outcomes[item.nodeid].append(_lost(item, said))
    return outcomes


def _lost(item: pytest.Item, said: str) -> pytest.TestReport:
    """The report on a test that the other process did not come to."""
    return pytest.TestReport(
        item.nodeid, item.location, item.keywords, "failed", said, "call"
    )


def _read(reports: Path) -> Iterator[pytest.TestReport]:
    if reports.exists():
        for line in reports.read_text("utf-8").splitlines():
            yield pytest.TestReport._from_json(json.loads(line))
