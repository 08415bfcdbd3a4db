# SPDX-License-Identifier: Apache-2.0
"""A small measurement of the real model, whose numbers must make sense."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import data
from cintervene.evaluate import EvaluationSize, measure
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, find_unembedding
from cintervene.solvers.update import LowRankUpdate

LITTLE = EvaluationSize(
    forbidden=12,
    benign=12,
    related=4,
    prompts=6,
    answer_tokens=8,
    texts=2,
    forbidden_requests=12,
    benign_requests=12,
    request_tokens=10,
)


@pytest.mark.model
def test_smollm2(smollm2: Any) -> None:
    model, tokenizer = smollm2
    words = data.forbidden_words()[::8]
    (target,) = find_targets(model, [29])
    # Away from where the words' first tokens point, whatever the input.
    tokens = [tokenizer.encode(" " + word)[0] for word in words]
    away = -find_unembedding(model).directions(tokens, target).mean(dim=0)
    right = target.weight.detach().float().mean(dim=0).abs()
    update = LowRankUpdate(
        (away / away.norm())[:, None].double().numpy(), right[None].double().numpy()
    )
    intervention = Intervention.of(model, [(target, update)], options={"forbid": words})
    found = measure(model, tokenizer, intervention, size=LITTLE)
    assert found.forbidden.words == 12
    assert 5 < found.forbidden.all_tokens.together.before.value < 2000
    assert 5 < found.drift.texts.before.value < 200
    assert 0.1 < found.obedience.rate.before.value < 0.9
    assert 0.0 < found.drift.kl.value < 0.5
    assert found.benign is not None
    assert 0.5 < found.benign.all_tokens.together.effect.value < 2.0
    assert any(answer.before == answer.after for answer in found.answers)
