# SPDX-License-Identifier: Apache-2.0
"""The changes that a method tried, each of which can be had instead of the chosen."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.little_defences import little_defence
from support.speaking_models import make_speaking_model

from cintervene.intervention.acceptance import excessive
from cintervene.methods.common.front import kept_front
from cintervene.methods.defend import defend

# So that several points are tried; a random model drifts as it likes.
LENIENT = {"max_kl": 1e9}
# The package's templates are long, in characters.
ROOM = {"max_position_embeddings": 1024}


@pytest.mark.parametrize("name", ["pcr", "pcr, requests", "tsr", "gate"])
def test_every_point_can_be_had(name: str) -> None:
    model, tokenizer = make_speaking_model(**ROOM)
    weights = {n: w.clone() for n, w in model.state_dict().items()}
    with kept_front() as front:
        chosen = defend(model, tokenizer, **little_defence(name, **LENIENT))
    assert [dict(point.measures) for point in front] == chosen.metrics["sweep"]
    (best,) = [point for point in front if point.chosen]
    assert best.make().digest == chosen.digest
    assert best.make().metrics == chosen.metrics
    for number, point in enumerate(front):
        change = point.make()
        assert [one["chosen"] for one in change.metrics["sweep"]] == [
            at == number for at in range(len(front))
        ]
        assert change.metrics["within_limits"] is point.within_limits
        assert point.within_limits is (excessive(change) == [])
        assert change.options == chosen.options
        with change.applied(model):
            pass
    assert all(torch.equal(w, weights[n]) for n, w in model.state_dict().items())


def test_points_are_what_their_strength_says() -> None:
    model, tokenizer = make_speaking_model(**ROOM)
    asked = little_defence("pcr, requests", **LENIENT)
    with kept_front() as front:
        defend(model, tokenizer, **asked)
    assert len(front) > 1
    for point in front:
        alone = defend(model, tokenizer, **asked, strength=point.measures["strength"])
        assert point.make().digest == alone.digest
        assert point.make().metrics["layers"] == alone.metrics["layers"]


def test_points_of_a_descent_are_multiples() -> None:
    model, tokenizer = make_speaking_model(**ROOM)
    with kept_front() as front:
        chosen = defend(model, tokenizer, **little_defence("tsr", **LENIENT))
    assert len(front) > 1
    for point in front:
        factor = point.measures["strength"] / chosen.metrics["strength"]
        for name, update in point.make().updates.items():
            whole = update.left @ update.right
            other = chosen.updates[name]
            np.testing.assert_allclose(
                whole, factor * other.left @ other.right, rtol=1e-4, atol=1e-7
            )


def test_nothing_is_kept_unasked() -> None:
    model, tokenizer = make_speaking_model(**ROOM)
    with kept_front() as front:
        pass
    defend(model, tokenizer, **little_defence("pcr, requests", strength=4.0))
    assert front == []
