# SPDX-License-Identifier: Apache-2.0
"""The stub of the extension module describes the extension module."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[2] / "pyproject.toml"


def test_stub_matches_the_module():
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy.stubtest", "cintervene._core"]
    done = subprocess.run(
        [*command, "--mypy-config-file", CONFIGURATION],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
