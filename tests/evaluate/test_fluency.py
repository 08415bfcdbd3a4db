# SPDX-License-Identifier: Apache-2.0
"""The perplexity of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.speaking_models import make_speaking_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.next_token import answer_nll
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import Outcome, outcomes
from cintervene.models.parts import ModelParts
from cintervene.prompts.chat import render


@pytest.fixture
def pair() -> Any:
    return make_speaking_model()


def test_perplexities(pair: Any) -> None:
    model, tokenizer = pair
    found = perplexities(model, tokenizer, ["hi", "you"], ["abc", ""])
    ids = render(tokenizer, "hi")
    (nats,) = answer_nll(ModelParts.find(model), [ids], [tokenizer("abc")["input_ids"]])
    assert found == pytest.approx([np.exp(nats.mean()), 1.0])
    broken = outcomes(["abc", "I can't."], perplexities=[1e9, 1.0])
    assert broken == [Outcome.BROKEN, Outcome.REFUSED]
