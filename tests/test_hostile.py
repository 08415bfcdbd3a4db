# SPDX-License-Identifier: Apache-2.0
"""Hostile files end a command in one printable line, soon, and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent
SCRIPT = ROOT / "support" / "hostile_runs.py"


@pytest.mark.parametrize(
    ("kind", "least"),
    [("interventions", 130), ("ggufs", 150), ("directories", 60), ("texts", 80)],
)
def test_every_file(
    kind: str, least: int, cases: Callable[[int, int], int],
    counted: Callable[[str, int], None],
) -> None:  # fmt: skip
    nth = cases(1, 1)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT.parent))),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(nth)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("CASE ")]
    found = [json.loads(line.removeprefix("CASE ")) for line in lines]
    assert [one for one in found if set(one) - {"name", "said"}] == []
    assert len(found) >= least
    counted(f"hostile {kind}", len(found))
