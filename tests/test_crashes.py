# SPDX-License-Identifier: Apache-2.0
"""Writers that are killed or fail at any call leave the old files, or the new ones."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("matplotlib")

from support import crashes

SCRIPT = Path(__file__).parent / "support" / "crash_writers.py"


def test_every_writer_at_any_call(
    tmp_path: Path, cases: Callable[[int, int], int], counted: Callable[[str, int], None]
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    kills, errors = cases(12, 10_000), cases(9, 10_000)
    library = crashes.build(tmp_path)
    printed = crashes.run(SCRIPT, library, str(kills), str(errors))
    found = [json.loads(line) for line in printed.splitlines()]
    wrong = [one for one in found if not one["right"]]
    assert wrong == []
    killed = [one for one in found if one["fault"] == "SIGKILL"]
    assert len(killed) >= 200
    assert len(found) - len(killed) >= 150
    counted("kills of writers", len(killed))
    counted("errors of the disk in writers", len(found) - len(killed))
    # Not that nothing was ever written, or nothing put back.
    states = Counter(one["state"] for one in found)
    assert min(states["old"], states["new"], states["absent"]) > 10
