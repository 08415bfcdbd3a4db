# SPDX-License-Identifier: Apache-2.0
"""Cases of studies, made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.evaluate.requests.outcomes import Outcome
from cintervene.study import CaseResult


def case(**changes: Any) -> CaseResult:
    made = CaseResult(
        "harmful", "none", "direct", "b", "topic", 0, "p", "", "a",
        Outcome.COMPLIED, 1.0, 2.0, 3.0,
    )  # fmt: skip
    return replace(made, **changes)
