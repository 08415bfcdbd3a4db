# SPDX-License-Identifier: Apache-2.0
"""Measurements made up, that reach all goals unless changed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.evaluate import Change, Estimate, WordMeasurement
from cintervene.evaluate.words.records import (
    Answer,
    Drift,
    Elicited,
    GroupPerplexity,
    Obedience,
    Perplexity,
    RunningText,
    WordPerplexity,
)

SWEEP = [
    {"strength": 2.0, "forbidden_ratio": 3.0, "benign_ratio": 0.99, "kl": 0.01},
    {"strength": 4.0, "forbidden_ratio": 8.0, "benign_ratio": 1.02, "kl": 0.03},
    {"strength": 6.0, "forbidden_ratio": 9.0, "benign_ratio": 1.08, "kl": 0.07},
]


def around(value: float, width: float = 0.1) -> Estimate:
    return Estimate(value, value - width * abs(value), value + width * abs(value))


def rise(ratio: float, width: float = 0.1) -> Change:
    return Change(around(40.0), around(40.0 * ratio), around(ratio, width), "ratio")


def spoken(first: float, later: float, width: float = 0.1) -> GroupPerplexity:
    together = math.sqrt(first * later)
    places = Perplexity(*(rise(x, width) for x in (first, later, together)))
    words = [
        WordPerplexity(f"word{n}", 10.0 * n, 10.0 * n * together) for n in range(1, 6)
    ]
    return GroupPerplexity(5, 10, places, places, words)


def rate(before: float, after: float) -> Obedience:
    change = after - before
    effect = Estimate(change, change - 0.02, change + 0.02)
    return Obedience(50, Change(around(before), around(after), effect, "difference"))


DRIFT = Drift(
    kl=Estimate(0.02, 0.01, 0.03),
    worst_kl=0.3,
    kl_elsewhere=Estimate(0.015, 0.01, 0.02),
    said_tokens=4,
    prompts=60,
    tokens=1900,
    texts=rise(1.0),
    text_tokens=2500,
)


def make_measurement(**changes: Any) -> WordMeasurement:
    found = WordMeasurement(
        model="tiny",
        split="held_out",
        level=0.95,
        words=["gun", "bomb"],
        forbidden=spoken(14.0, 24.0),
        benign=spoken(1.02, 1.02, width=0.01),
        related=spoken(1.2, 1.3),
        obedience=rate(0.4, 0.1),
        benign_obedience=rate(0.4, 0.39),
        drift=DRIFT,
        layers=[],
        answers=[
            Answer("gun", True, "Say gun.", "Gun.", "Sorry | ```no```"),
            Answer("bomb", True, "Say bomb.", "Bomb.", "bomb"),
            Answer("tea", False, "Say tea.", "Tea.", ""),
        ],
        seconds={"answers before": 1.5},
        elicited=[
            Elicited("all together", 50, rate(0.3, 0.08).rate),
            Elicited("prefill", 50, rate(0.3, 0.08).rate),
        ],
        running=RunningText(5, rise(40.0), rise(9.0), spoken(40.0, 40.0).by_word),
    )
    return replace(found, **changes)
