# SPDX-License-Identifier: Apache-2.0
"""Requests of two kinds for gates of models that know no language."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.intervention.intervention import Intervention
from cintervene.methods.gate.examples import GateExamples
from cintervene.prompts.refusal_examples import TargetExample


def random_examples(rng: Any, n: int, sets: bool) -> list[TargetExample]:
    """Requests that end in a token of their kind, half of them with a prefill."""
    found = []
    for at in range(n):
        request = rng.integers(3, 80, size=5).tolist()
        prefill = [81 + sets] * (at % 2)
        ids = (*request, 95 + sets, *prefill, 90, 91)
        start = len(ids) - 2
        if sets:
            found.append(TargetExample(ids, 0, start, ((90,), (91,)), start - 6))
        else:
            found.append(TargetExample(ids, 0, start, prefill_length=start - 6))
    return found


def random_requests(fitted: int, tuned: int) -> GateExamples:
    """As many of each kind to fit to and to choose on."""
    rng = np.random.default_rng(5)
    return GateExamples(
        [[one] for one in random_examples(rng, fitted, True)],
        random_examples(rng, fitted, False),
        random_examples(rng, tuned, True), random_examples(rng, tuned, False),
    )  # fmt: skip


def really(
    model: Any, change: Intervention, examples: GateExamples
) -> tuple[float, float]:
    """Drift and share of refusals of the model with its weights changed."""
    kl, reached = [], []
    for one in examples.tune_benign:
        ids = torch.tensor([one.ids])
        base = torch.log_softmax(model(input_ids=ids).logits[0], -1)
        with change.applied(model):
            new = torch.log_softmax(model(input_ids=ids).logits[0], -1)
        kl += (base.exp() * (base - new)).sum(-1)[list(one.positions)].tolist()
    with change.applied(model):
        for one in examples.tune_harmful:
            logits = model(input_ids=torch.tensor([one.ids])).logits[0]
            p = torch.softmax(logits, -1)
            path = zip(one.positions, one.target_sets, strict=True)
            reached.append(all(p[at, token] >= 0.5 for at, (token,) in path))
    return float(np.mean(kl)), float(np.mean(reached))
