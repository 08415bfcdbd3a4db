# SPDX-License-Identifier: Apache-2.0
"""The stub of the extension module describes the extension module."""

import subprocess
import sys

import pytest


def test_stub_matches_the_module():
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "cintervene._core"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
