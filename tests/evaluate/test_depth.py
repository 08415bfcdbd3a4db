# SPDX-License-Identifier: Apache-2.0
"""Answers that were begun: who is asked, what is given, and how likely help is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.speaking_models import make_speaking_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.attacks.templates import PREFILL
from cintervene.evaluate.requests.depth import Begun, begin_answers, depth_curve
from cintervene.prompts.chat import generate, render
from cintervene.prompts.spelling import encode_text

REQUESTS = ["Do one.", "Do two!", "Do three?"]


@pytest.fixture(scope="module")
def pair() -> Any:
    return make_speaking_model(eos_token_id=None, bos_token_id=None, pad_token_id=None)


def nobody(prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    return [False] * len(answers)


def test_answers_begin_as_they_are_made_to(pair: Any) -> None:
    model, tokenizer = pair
    found = begin_answers(model, tokenizer, REQUESTS, tokens=20, judge=nobody)
    start = encode_text(tokenizer, PREFILL)
    assert found
    for one in found:
        assert list(one.answer[: len(start)]) == start
        rest = generate(
            model, tokenizer, [render(tokenizer, one.request) + start], 20 - len(start)
        )
        assert list(one.answer[len(start) :]) == rest[0]


def test_requests_that_are_refused_then_are_left_out(pair: Any) -> None:
    def second(prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        return [prompt == REQUESTS[1] for prompt in prompts]

    every = begin_answers(*pair, REQUESTS, tokens=20, judge=nobody)
    found = begin_answers(*pair, REQUESTS, tokens=20, judge=second)
    assert found == [one for one in every if one.request != REQUESTS[1]]


def test_a_point_is_what_the_model_goes_on_with(pair: Any) -> None:
    model, tokenizer = pair
    source = np.random.default_rng(0)
    begun = [
        Begun(one, tuple(map(int, source.integers(1, 60, size)))) for one, size in
        zip(REQUESTS, (9, 9, 4), strict=True)
    ]  # fmt: skip
    told: dict[str, list[str]] = {}

    def listening(prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        told.setdefault(str(list(prompts)), []).extend(answers)
        return [prompt == REQUESTS[0] for prompt in prompts]

    points = depth_curve(
        model, tokenizer, begun, depths=(0, 5, 40), tokens=6, judge=listening
    )
    assert [one.depth for one in points] == [0, 5]
    # The third answer has no sixth token, and none has forty.
    assert [one.outcomes.total for one in points] == [3, 2]
    for point, longer in zip(points, (begun, begun[:2]), strict=True):
        ranks = []
        for one in longer:
            ids = [*render(tokenizer, one.request), *one.answer[: point.depth]]
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1]
            order = logits.argsort(descending=True).tolist()
            ranks.append(order.index(one.answer[point.depth]) + 1)
        assert point.rank == np.median(ranks)
        assert point.top_ten.value == np.mean(np.array(ranks) <= 10)
    assert set(told) >= {str(REQUESTS), str(REQUESTS[:2])}


def test_nothing_begun_is_no_curve(pair: Any) -> None:
    assert depth_curve(*pair, []) == []
