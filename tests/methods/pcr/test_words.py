# SPDX-License-Identifier: Apache-2.0
"""Forbidding words: constraints, the output metric, the strength, the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.letters import Letters

from cintervene.errors import ArgumentError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import defend
from cintervene.activations.scoring import ROWS, Divergence, divergence, token_nll
from cintervene.methods.common.output_metric import OutputMetric, token_statistics
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.constraints import TokenConstraintIndex
from cintervene.methods.pcr.layerwise import output_cost, truncate_rank
from cintervene.methods.pcr.method import constrain
from cintervene.methods.pcr.resolve import choose_layers
from cintervene.methods.pcr.strength import SweepPoint, WordLimits, knee
from cintervene.models import find_decoder, find_targets, find_unembedding
from cintervene.models.parts import ModelParts
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.target_spans import TargetSpan
from cintervene.solvers.pcr import pcr
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.update import LowRankUpdate


def test_constraints_hold_tokens_openings_and_what_must_not_be_lost() -> None:
    forget = TargetSpan((1, 2, 3, 4), 2, "w", False, {3: 1.0, 7: 0.5}, (1.0, 0.25))
    near = TargetSpan((5, 6, 8), 1)
    index = TokenConstraintIndex.of([forget], [near])
    named = {
        (
            int(index.sequences[row]),
            int(index.positions[row]),
            int(index.tokens[column]),
            float(index.signs[column]),
        ): float(weight)
        for row, column, weight in zip(
            index.rows, index.columns, index.weights, strict=True
        )
    }
    assert named == {
        (0, 1, 3, 1.0): 1.0,
        (0, 1, 7, 1.0): 0.5,
        (0, 2, 4, 1.0): 0.25,
        (1, 0, 6, -1.0): 1.0,
        (1, 1, 8, -1.0): 1.0,
    }
    assert index.wanted(2) == [[1, 2], [0, 1]]


def test_the_metric_preserves_products_and_measures_shifts() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 5))
    fisher = root @ root.T
    metric = OutputMetric(fisher, ridge=1e-9)
    points, directions = rng.standard_normal((2, 4, 5))
    np.testing.assert_allclose(
        metric.points(points) @ metric.directions(directions).T,
        points @ directions.T,
        atol=1e-6,
    )
    lengths = np.square(metric.points(points)).sum(axis=1)
    expected = np.einsum("nd,de,ne->n", points, fisher, points)
    np.testing.assert_allclose(lengths, expected * 5 / np.trace(fisher), rtol=1e-6)
    update = LowRankUpdate(rng.standard_normal((5, 2)), rng.standard_normal((2, 3)))
    back = metric.restore(LowRankUpdate(metric.points(update.left.T).T, update.right))
    np.testing.assert_allclose(back.matrix(), update.matrix(), atol=1e-6)


def test_fisher_information_predicts_the_divergence(tiny_model: Any) -> None:
    model = tiny_model("llama").double()
    unembedding = find_unembedding(model)
    source = torch.Generator().manual_seed(1)
    # Without a component along the state, the final norm's spread stays the same.
    hidden = torch.randn(1, 24, generator=source, dtype=torch.float64)
    shift = torch.randn(1, 24, generator=source, dtype=torch.float64)
    shift -= (shift @ hidden.T) / (hidden @ hidden.T) * hidden
    fisher = torch.from_numpy(token_statistics(unembedding, hidden).fisher)
    spread = hidden.square().mean().sqrt()
    shift *= 0.01 / shift.norm()
    predicted = (shift @ fisher @ shift.T) / (2 * spread**2)
    measured = divergence(unembedding, hidden, hidden + shift)
    assert torch.is_grad_enabled()
    assert measured[0] == pytest.approx(float(predicted), rel=0.05)


# Of two blocks of states none, the first, and both.
@pytest.mark.parametrize("room", [0, ROWS * 97 * 4, 1 << 20])
def test_the_divergence_is_the_same_whatever_is_kept_of_the_base(
    tiny_model: Any, room: int
) -> None:
    unembedding = find_unembedding(tiny_model("llama"))
    source = torch.Generator().manual_seed(1)
    base, *others = torch.randn(3, ROWS + 40, 24, generator=source)
    kept = Divergence(unembedding, base, room)
    for other in (*others, base):
        p, q = (torch.log_softmax(unembedding.logits(x), dim=-1) for x in (base, other))
        expected = (p.exp() * (p - q)).sum(dim=-1)
        np.testing.assert_allclose(kept.of(other), expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(
            kept.of(other), divergence(unembedding, base, other)
        )


def test_where_all_next_tokens_are_certain_the_metric_is_the_plain_one(
    tiny_model: Any,
) -> None:
    """The Fisher information is zero then, and its rounding may be below."""
    unembedding = replace(find_unembedding(tiny_model("llama")), scale=1e9)
    hidden = torch.randn(20, 24, generator=torch.Generator().manual_seed(1))
    fisher = token_statistics(unembedding, hidden).fisher
    np.testing.assert_array_equal(fisher, np.eye(24))
    points = np.arange(48.0).reshape(2, 24)
    np.testing.assert_allclose(OutputMetric(fisher, 0.0).points(points), points)


def test_scores_are_those_of_the_model(any_model: Any) -> None:
    decoder, unembedding = find_decoder(any_model), find_unembedding(any_model)
    ids = torch.tensor([[3, 4, 5, 6]])
    last = []
    handle = decoder.layers[-1].register_forward_hook(
        lambda _m, _a, out: last.append(out if torch.is_tensor(out) else out[0])
    )
    with torch.no_grad():
        logits = any_model(ids).logits[0, :-1]
    handle.remove()
    nll = token_nll(unembedding, last[0][0, :-1], ids[0, 1:])
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    np.testing.assert_allclose(nll, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("d_out", "rank"), [(5, 8), (8, 6), (9, 4)])
def test_truncating_gives_the_best_of_its_rank_in_the_preserved_norm(
    d_out: int, rank: int
) -> None:
    rng = np.random.default_rng(3)
    preserve = Preserve(rng.standard_normal((40, 6)) * np.arange(1, 7), ridge=0.1)
    left, right = rng.standard_normal((d_out, rank)), rng.standard_normal((rank, 6))
    update = LowRankUpdate(left, right)
    p = preserve.gram(np.eye(6))
    cost = update.matrix() @ p @ update.matrix().T
    kept = truncate_rank(update, cost, 2)
    singular = np.linalg.svd(update.matrix() @ np.linalg.cholesky(p), compute_uv=False)
    assert kept.rank == 2
    missing = preserve.norm(update.matrix() - kept.matrix())
    assert missing == pytest.approx(np.linalg.norm(singular[2:]), rel=1e-6)
    whole = truncate_rank(update, cost, 100)
    np.testing.assert_allclose(whole.matrix(), update.matrix(), atol=1e-10)


@pytest.mark.parametrize("slack", [0.0, 0.5])
def test_the_cost_of_outputs_needs_no_product_with_the_norm(slack: float) -> None:
    """That of a solution in representer form, and of one over orthonormal rows."""
    rng = np.random.default_rng(5)
    inputs, outputs = rng.standard_normal((7, 9)), rng.standard_normal((7, 4))
    preserve = Preserve(rng.standard_normal((30, 9)), ridge=0.1)
    solution = pcr(inputs, outputs, outputs[:2], 0.5, preserve=preserve, slack=slack)
    change = solution.update.matrix()
    expected = change @ preserve.gram(np.eye(9)) @ change.T
    basis = np.linalg.qr(solution.update.right.T)[0].T
    rotated = LowRankUpdate(change @ basis.T, basis)
    settled = replace(solution, update=rotated, coefficients=None)
    assert expected.any()
    for one in (solution, settled):
        np.testing.assert_allclose(output_cost(one, preserve), expected, atol=1e-9)


def _point(
    strength: float, forbidden_ratio: float, benign_ratio: float, kl: float
) -> SweepPoint:
    return SweepPoint(strength, forbidden_ratio, benign_ratio, kl, forbidden_ratio)


def test_the_knee_keeps_within_the_limits() -> None:
    limits = WordLimits(effect=2.0, kl=0.05, benign_loss=0.05)
    points = [
        _point(1.0, 2.0, 1.0, 0.001),
        _point(2.0, 8.0, 1.0, 0.01),
        _point(3.0, 9.0, 1.0, 0.03),
        _point(4.0, 99.0, 1.2, 0.04),
    ]
    assert knee(points, limits).strength == 2.0
    in_step = [_point(float(s), np.exp(s), 1.0, 0.005 * s) for s in range(1, 10)]
    assert knee(in_step, limits).strength == 7.0
    assert knee(points[3:], limits).strength == 4.0
    assert knee([_point(1.0, 0.9, 1.0, 0.001)], limits).strength == 1.0


def test_the_knee_reaches_the_effect_where_the_limits_let_it() -> None:
    points = [
        _point(1.0, 3.1, 1.0, 0.005),
        _point(2.0, 6.5, 1.0, 0.014),
        _point(3.0, 15.5, 1.0, 0.027),
        _point(4.0, 60.0, 1.06, 0.04),
    ]
    chosen = {
        effect: knee(points, WordLimits(effect, 0.05, 0.05)).strength
        for effect in (1.5, 4.0, 5.0, 50.0)
    }
    assert chosen == {1.5: 1.0, 4.0: 2.0, 5.0: 3.0, 50.0: 3.0}


def test_the_margin_gives_way_where_only_beyond_it_the_effect_is_reached() -> None:
    points = [
        _point(1.0, 4.0, 1.0, 0.02),
        _point(2.0, 10.3, 1.0, 0.039),
        _point(3.0, 12.0, 1.0, 0.045),
    ]
    assert knee(points, WordLimits(5.0, 0.05, 0.05)).strength == 2.0
    assert knee(points, WordLimits(5.0, 0.038, 0.05)).strength == 1.0
    assert knee(points, WordLimits(50.0, 0.05, 0.05)).strength == 1.0


def _spans(rng: np.random.Generator, n: int) -> list[TargetSpan]:
    rows = rng.integers(3, 97, size=(n, 7))
    return [TargetSpan(tuple(map(int, row)), 5, weights=(1.0, 1.0)) for row in rows]


def test_what_strengths_share_does_not_depend_on_those_before(tiny_model: Any) -> None:
    rng = np.random.default_rng(6)
    parts = ModelParts.find(tiny_model("llama"))
    forget, retain, near = (_spans(rng, n) for n in (3, 12, 4))
    config = PCRConfig(forbid=["bomb"], slack=0.1, layers=[2, 3])
    calibration = Calibration(forget, near, retain, [], [], [])
    used, fresh = (constrain(parts, calibration, config) for _ in range(2))
    used.solve(2.0)
    for one, other in zip(used.solve(4.0), fresh.solve(4.0), strict=True):
        np.testing.assert_array_equal(one.update.left, other.update.left)
        np.testing.assert_array_equal(one.update.right, other.update.right)


@pytest.mark.parametrize("concepts", ["contrast", "unembedding"])
def test_forbidden_tokens_become_unlikely_on_every_architecture(
    any_model: Any, concepts: Any, matrix: Any
) -> None:
    rng = np.random.default_rng(5)
    forget, retain, near = (_spans(rng, n) for n in (3, 12, 4))
    config = PCRConfig(
        forbid=["bomb"], concepts=concepts, slack=0.1, layers=[2, 3], matrix=matrix
    )
    before = {n: p.detach().clone() for n, p in any_model.named_parameters()}
    calibration = Calibration(forget, near, retain, [], [], [])
    layerwise = constrain(ModelParts.find(any_model), calibration, config)
    changes = layerwise.solve(4.0)
    for name, parameter in any_model.named_parameters():
        assert torch.equal(parameter, before[name])
    assert [change.target.layer for change in changes] == [2, 3]
    falling = TokenConstraintIndex.of(forget, near).falling
    assert all(np.mean(change.achieved[falling]) > 0.0 for change in changes)
    with torch.no_grad():
        losses = []
        for applied in (False, True):
            if applied:
                for change in changes:
                    weight = change.target.weight
                    matrix = torch.from_numpy(change.update.matrix()).to(weight.dtype)
                    weight += matrix.T if change.target.transposed else matrix
            nll = [
                torch.nn.functional.cross_entropy(
                    any_model(torch.tensor([one.ids])).logits[0, 4:6],
                    torch.tensor(one.targets),
                )
                for one in forget
            ]
            losses.append(float(torch.stack(nll).mean()))
    assert losses[1] > losses[0] + 0.2


def test_bad_arguments_name_the_fix(tiny_model: Any) -> None:
    model, letters = tiny_model("llama"), Letters()
    for wrong, match in (
        ({"forbid": "bomb"}, r"Write \['bomb'\]"),
        ({"method": "magic"}, "method: got 'magic'"),
        ({"concepts": "vibes"}, "concepts: got 'vibes'"),
        ({"layers": "most"}, "layers: got 'most'"),
        ({"matrix": "q_proj"}, "matrix: got 'q_proj'"),
        ({"strength": -1.0}, "strength: got -1.0"),
        ({"max_kl": 0.0}, "max_kl: got 0.0"),
        ({"min_effect": -1.0}, "min_effect: got -1.0"),
    ):
        with pytest.raises(ArgumentError, match=match):
            defend(model, letters, **({"forbid": ["bomb"]} | wrong))


def test_automatic_layers_are_the_last() -> None:
    assert choose_layers("auto", 30, "forbid") == [28, 29]
    assert choose_layers("auto", 1, "forbid") == [0]
    assert choose_layers([-1, 0], 4, "forbid") == [0, 3]


@pytest.mark.model
def test_a_few_words_on_smollm2(smollm2: Any) -> None:
    model, tokenizer = smollm2
    targets = find_targets(model, [28, 29])
    before = [target.weight.detach().clone() for target in targets]
    size = CalibrationSize(
        prompts=12,
        tune_prompts=6,
        contrast_words=6,
        text_words=6,
        tune_words=4,
        answer_tokens=8,
        texts=6,
    )
    words = ["bomb", "knife", "murder", "attack", "abuse"]
    result = defend(model, tokenizer, forbid=words, calibration=size)
    for target, weight in zip(targets, before, strict=True):
        assert torch.equal(target.weight, weight)
    chosen = [point for point in result.metrics["sweep"] if point["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["forbidden_ratio"] > 2.0
    assert chosen[0]["kl"] < 0.05
    assert result.options["forbid"] == words
