# SPDX-License-Identifier: Apache-2.0
"""The stub of the extension module describes the extension module."""

import subprocess
import sys
from pathlib import Path

import pytest

# The module's package would have all of torch read, of which the stub says nothing.
CONFIGURATION = "[mypy]\n[mypy-cintervene.*]\nfollow_imports = skip\n"


def test_stub_matches_the_module(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    configuration = tmp_path / "mypy.ini"
    configuration.write_text(CONFIGURATION)
    command = [sys.executable, "-m", "mypy.stubtest", "cintervene._core"]
    done = subprocess.run(
        [*command, "--mypy-config-file", configuration],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
