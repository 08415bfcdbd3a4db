# SPDX-License-Identifier: Apache-2.0
"""What the command says of work that several processes do not share."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest

pytest.importorskip("torch")

import cintervene as ci
from cintervene.cli.common import launched
from cintervene.cli.common.console import Console

WORDS = ci.PCRConfig(forbid=["bad"])
DESCENTS = [ci.TSRConfig(), ci.ARRConfig(), ci.GateConfig()]


def said(config: Any) -> str:
    stream = StringIO()
    launched.note_alike(config, Console(stream))
    return stream.getvalue()


@pytest.mark.parametrize("config", DESCENTS, ids=lambda config: config.method)
def test_descents_are_not_shared(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    assert said(config) == ""
    monkeypatch.setattr(launched, "world", lambda: 3)
    assert f"{config.method}: 3 processes share answers" in said(config)
    assert "the first one writes" in said(config)


def test_of_what_is_shared_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launched, "world", lambda: 3)
    assert said(WORDS) == ""
