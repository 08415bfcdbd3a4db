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


LEAST = {"interventions": 130, "ggufs": 150, "directories": 60, "texts": 90}


def test_every_file(
    cases: Callable[[int, int], int], counted: Callable[[str, int], None]
) -> None:
    nth = cases(2, 1)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **({"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT.parent))),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(nth), *LEAST],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("CASE ")]
    found = [json.loads(line.removeprefix("CASE ")) for line in lines]
    assert [one for one in found if set(one) - {"kind", "name", "said"}] == []
    for kind, least in LEAST.items():
        number = sum(one["kind"] == kind for one in found)
        assert number >= least // nth
        counted(f"hostile {kind}", number)
