# SPDX-License-Identifier: Apache-2.0
"""Next tokens of several prompts at once are those of single passes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.next_token import answer_nll, next_logits
from cintervene.models.parts import ModelParts


def test_next_logits_and_nll_are_those_of_single_passes(any_model: Any) -> None:
    prompts, answers = [[5, 6], [7, 8, 9], [4]], [[10, 11], [], [12, 3, 5]]
    nats = answer_nll(ModelParts.find(any_model), prompts, answers)
    logits = next_logits(ModelParts.find(any_model), prompts)
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.no_grad():
            full = any_model(torch.tensor([prompt + answer])).logits[0].float()
        at = len(prompt) - 1
        torch.testing.assert_close(logits[index], full[at], atol=1e-4, rtol=1e-4)
        rows = torch.log_softmax(full[at:-1], dim=-1)
        expected = [-rows[k, token].item() for k, token in enumerate(answer)]
        assert nats[index] == pytest.approx(expected, abs=1e-3)
