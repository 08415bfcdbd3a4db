# SPDX-License-Identifier: Apache-2.0
"""Answers that are given together, in one batch."""

from __future__ import annotations

import pytest
from support.speaking_models import make_speaking_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.prompts.answerer import AnsweredTogether
from cintervene.prompts.chat import generate


def test_what_comes_in_parts_is_answered_in_one_batch() -> None:
    model, tokenizer = make_speaking_model(
        eos_token_id=None, bos_token_id=None, pad_token_id=None
    )
    first, second = [[3, 4, 5], [6, 7]], [[8, 9, 10], [6, 7]]
    expected = [generate(model, tokenizer, one, 6) for one in (first, second)]
    batches, told = [], []
    handle = model.model.embed_tokens.register_forward_hook(
        lambda _module, args, _output: batches.append(len(args[0]))
    )
    try:
        answer = AnsweredTogether(model, tokenizer, [(first, 6), (second, 4)])
        assert batches == []
        found = [answer(first, 6, step=told.append), answer(second, 4)]
    finally:
        handle.remove()
    assert found == [expected[0], [one[:4] for one in expected[1]]]
    assert told == [2]
    # A step of all three prompts for each token of the longest answer.
    assert batches[0] == 3
    assert len(batches) == 6
