# SPDX-License-Identifier: Apache-2.0
"""A model with an intervention, called beside the model itself."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.interventions import random_intervention
from support.packed_layers import Codes, with_packed
from support.tiny_models import make_tiny_model

from cintervene.errors import InterventionError
from cintervene.intervention.beside import Beside
from cintervene.models.targets import find_targets

IDS = torch.tensor([[3, 17, 5, 41]])


def logits(call: Any) -> Any:
    with torch.no_grad():
        return call(input_ids=IDS).logits


def test_it_computes_what_the_changed_model_does(any_model: Any) -> None:
    intervention = random_intervention(any_model)
    weights = {n: w.clone() for n, w in any_model.state_dict().items()}
    before = logits(any_model)
    beside = Beside(any_model, intervention)
    for _ in range(2):
        after = logits(beside)
        assert torch.equal(logits(any_model), before)
    assert all(torch.equal(w, weights[n]) for n, w in any_model.state_dict().items())
    with intervention.applied(any_model):
        assert torch.equal(logits(any_model), after)
    assert not torch.equal(before, after)


def test_packed_weights_take_it_as_an_adapter() -> None:
    intervention = random_intervention(make_tiny_model("llama"), [3])
    model = with_packed(make_tiny_model("llama"), Codes)
    before = logits(model)
    beside = Beside(model, intervention)
    change = logits(beside) - before
    assert change.abs().max() > 0.01
    assert torch.equal(logits(model), before)


def test_another_model_is_refused() -> None:
    intervention = random_intervention(make_tiny_model("llama"))
    other = make_tiny_model("llama")
    with torch.no_grad():
        find_targets(other, [1])[0].weight.add_(1.0)
    with pytest.raises(InterventionError, match="is not the weight"):
        Beside(other, intervention)
    with pytest.raises(InterventionError, match="has no parameter"):
        Beside(make_tiny_model("gpt2"), intervention)
