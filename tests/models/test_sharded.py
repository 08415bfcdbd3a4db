# SPDX-License-Identifier: Apache-2.0
"""Models of which each process has a part: changed as wholes, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support import sharded_models
from support.processes import in_processes
from support.saved_models import save_tiny_model


def test_weights_are_changed_as_wholes(tmp_path: Path) -> None:
    in_processes(2, tmp_path, sharded_models.changes)


def test_what_needs_the_whole_model_is_refused(tmp_path: Path) -> None:
    saved = save_tiny_model(tmp_path / "tiny")
    in_processes(2, tmp_path, sharded_models.refusals, saved)
