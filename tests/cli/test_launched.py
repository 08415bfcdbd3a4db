# SPDX-License-Identifier: Apache-2.0
"""Methods whose work several processes cannot share are refused before any is done."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from support.toy_method import ToyConfig

import cintervene as ci
from cintervene.errors import ArgumentError
from cintervene.methods import defend

SHARED = [
    ci.PCRConfig(forbid=["bad"]), ci.TSRConfig(), ci.ARRConfig(), ci.GateConfig()
]  # fmt: skip


@pytest.mark.parametrize("config", SHARED, ids=lambda config: config.method)
def test_those_of_the_package_are_shared(
    monkeypatch: pytest.MonkeyPatch, config: Any
) -> None:
    monkeypatch.setattr(defend, "world", lambda: 3)
    defend.check_shared(config)


def test_others_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    defend.check_shared(ToyConfig())
    monkeypatch.setattr(defend, "world", lambda: 3)
    with pytest.raises(ArgumentError, match="'toy' does not share its work, and 3"):
        defend.check_shared(ToyConfig())
