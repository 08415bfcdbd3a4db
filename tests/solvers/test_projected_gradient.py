# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.containers import BFLOAT16, DTYPES, NUMPY_LAYOUTS, to_torch

import cintervene as ci


def make_inputs(m, d_in, seed=0, benign=9):
    rng = np.random.default_rng(seed)
    preserve = ci.Preserve(rng.normal(size=(benign, d_in)), ridge=0.3)
    return rng.normal(size=(m, d_in)), preserve


def full_matrix(preserve, d_in):
    """P as a matrix."""
    return np.eye(d_in) if preserve is None else preserve.gram(np.eye(d_in))


class FullMatrix:
    """The same iteration on the change (d_out, d_in) itself."""

    def __init__(self, inputs, radius, metric, step=None, length=0.5, momentum=False):
        self.inputs, self.radius, self.metric = inputs, radius, metric
        self.step_size, self.length, self.momentum = step, length, momentum
        self.here = self.trail = None
        self.age = 1.0

    def norm(self, change):
        return np.sqrt(np.trace(change @ self.metric @ change.T))

    def project(self, change):
        size = self.norm(change)
        return change * (self.radius / size) if size > self.radius else change

    def step(self, grad_outputs):
        gradient = grad_outputs.T @ self.inputs
        if self.here is None:
            self.here = self.trail = np.zeros_like(gradient)
        descent = np.linalg.solve(self.metric, gradient.T).T
        t = self.step_size or self.length * self.radius / self.norm(descent)
        stepped = self.project(self.here - t * descent)
        ahead = stepped - self.trail
        older = (1 + np.sqrt(1 + 4 * self.age**2)) / 2
        b, self.age = (self.age - 1) / older, older
        if np.trace((self.here - stepped) @ self.metric @ ahead.T) > 0:
            b, self.age = 0.0, 1.0
        b = b if self.momentum else 0.0
        self.here, self.trail = self.project(stepped + b * ahead), stepped
        return self.inputs @ self.here.T


def quadratic(target, curvature):
    """Loss 1/2 sum curvature (D - target)^2 and its derivative."""
    return lambda d: (
        0.5 * np.sum(curvature * (d - target) ** 2),
        curvature * (d - target),
    )


@pytest.mark.parametrize("with_preserve", [False, True])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("rule", [{"step": 0.03}, {"length": 0.3}], ids=str)
@pytest.mark.parametrize("radius", [0.5, 1e3])
def test_equals_full_matrices(with_preserve, momentum, rule, radius):
    rng = np.random.default_rng(1)
    inputs, preserve = make_inputs(6, 11)
    preserve = preserve if with_preserve else None
    loss = quadratic(rng.normal(size=(6, 4)), rng.uniform(0.1, 2, size=(6, 4)))
    ours = ci.ProjectedGradient(inputs, radius, preserve, momentum=momentum, **rule)
    metric = full_matrix(preserve, 11)
    oracle = FullMatrix(inputs, radius, metric, momentum=momentum, **rule)
    d = np.zeros((6, 4))
    for _ in range(40):
        gradient = loss(d)[1]
        d, expected = ours.step(gradient), oracle.step(gradient)
        np.testing.assert_allclose(d, expected, atol=1e-10 * (1 + radius))
    np.testing.assert_allclose(ours.update.matrix(), oracle.here, atol=1e-8)
    assert ours.norm == pytest.approx(oracle.norm(oracle.here), rel=1e-9)
    assert ours.norm <= radius * (1 + 1e-12)


def test_update_does_what_the_displacements_say():
    inputs, preserve = make_inputs(5, 8)
    pg = ci.ProjectedGradient(inputs, 0.7, preserve)
    d = pg.step(np.random.default_rng(2).normal(size=(5, 3)))
    np.testing.assert_allclose(inputs @ pg.update.matrix().T, d, atol=1e-12)
    np.testing.assert_array_equal(pg.displacements, d)
    assert preserve.norm(pg.update) == pytest.approx(pg.norm)
    assert pg.norm == pytest.approx(0.35)


@pytest.mark.parametrize("d_out", [3, 40])
def test_more_rows_than_dimensions(d_out):
    inputs, preserve = make_inputs(30, 8)
    pg = ci.ProjectedGradient(inputs, 2.0, preserve)
    d = pg.step(np.random.default_rng(3).normal(size=(30, d_out)))
    assert pg.update.rank == min(d_out, 8)
    np.testing.assert_allclose(inputs @ pg.update.matrix().T, d, atol=1e-12)


@pytest.mark.parametrize("momentum", [False, True])
def test_a_step_with_its_response_is_the_same_step(momentum):
    rng = np.random.default_rng(10)
    inputs, preserve = make_inputs(6, 9)
    ours = ci.ProjectedGradient(inputs, 1.0, preserve, momentum=momentum)
    plain = ci.ProjectedGradient(inputs, 1.0, preserve, momentum=momentum)
    for _ in range(5):
        gradient = rng.normal(size=(6, 4))
        response = ours.respond(gradient)
        np.testing.assert_allclose(
            response, preserve.solve(inputs) @ inputs.T @ gradient, atol=1e-12
        )
        d = ours.step(gradient, response=response)
        np.testing.assert_array_equal(d, plain.step(gradient))
        assert ours.last == plain.last
        assert np.vdot(gradient, response) == pytest.approx(ours.last.gradient_norm**2)


def test_a_rejected_step_has_no_use_for_a_response():
    inputs, _ = make_inputs(4, 6)
    gradients = np.random.default_rng(11).normal(size=(2, 4, 3))
    ours, plain = (ci.ProjectedGradient(inputs, 1.0) for _ in range(2))
    for gradient, loss in zip(gradients, (1.0, 2.0), strict=True):
        d = ours.step(gradient, loss, response=ours.respond(gradient))
        np.testing.assert_array_equal(d, plain.step(gradient, loss))
    assert ours.last.rejected


def test_repeated_and_zero_rows_need_no_inverse():
    inputs = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    pg = ci.ProjectedGradient(inputs, 1.0)
    d = pg.step(np.array([[1.0], [3.0], [5.0]]))
    np.testing.assert_allclose(d, [[-0.5 * 5**0.5], [-0.5 * 5**0.5], [0.0]])


def test_momentum_reaches_the_optimum_sooner():
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(8, 20)) * np.geomspace(1, 0.1, 8)[:, None]
    curvature = np.ones((8, 5))
    loss = quadratic(rng.normal(size=(8, 5)), curvature)
    step = 1 / np.linalg.eigvalsh(inputs @ inputs.T).max()
    gaps = {}
    for momentum in (False, True):
        pg = ci.ProjectedGradient(inputs, 3.0, step=step, momentum=momentum)
        d = np.zeros((8, 5))
        for _ in range(150):
            d = pg.step(loss(d)[1])
        gaps[momentum] = pg.last.gap
    assert abs(gaps[True]) < 0.1 * gaps[False]


def test_gap_bounds_what_a_convex_loss_can_still_gain():
    rng = np.random.default_rng(5)
    inputs, preserve = make_inputs(4, 9)
    loss = quadratic(rng.normal(size=(4, 3)), 1.0)
    pg = ci.ProjectedGradient(inputs, 0.8, preserve, step=0.01, momentum=True)
    values, gaps = [], []
    d = np.zeros((4, 3))
    for _ in range(400):
        value, gradient = loss(d)
        d = pg.step(gradient)
        values.append(value)
        gaps.append(pg.last.gap)
    assert gaps[-1] < 1e-8
    np.testing.assert_array_less(np.subtract(values, gaps), values[-1] + 1e-12)


def test_rising_loss_goes_back_and_shortens_the_step():
    inputs, _ = make_inputs(3, 5)
    loss = quadratic(np.ones((3, 2)), 100.0)
    pg = ci.ProjectedGradient(inputs, 50.0, length=1.0)
    d, seen = np.zeros((3, 2)), []
    for _ in range(60):
        value, gradient = loss(d)
        d = pg.step(gradient, value)
        seen.append((value, pg.last.rejected))
    accepted = [value for value, _ in seen[1:] if value < seen[0][0]]
    assert any(rejected for _, rejected in seen)
    assert pg.best_loss == min(value for value, _ in seen)
    assert len(accepted) > 5
    assert loss(pg.restore_best())[0] == pg.best_loss
    assert pg.best_loss < 0.05 * seen[0][0]


@pytest.mark.parametrize("momentum", [False, True])
def test_starting_again_from_coefficients(momentum):
    rng = np.random.default_rng(6)
    inputs, preserve = make_inputs(4, 6)
    pg = ci.ProjectedGradient(inputs, 1.0, preserve, momentum=momentum)
    first = pg.step(rng.normal(size=(4, 2)))
    pg.step(rng.normal(size=(4, 2)))
    coefficients, there, norm = pg.coefficients, pg.displacements, pg.norm
    pg.reset()
    assert pg.norm == 0.0
    pg.reset(coefficients)
    np.testing.assert_allclose(pg.displacements, there, atol=1e-14)
    assert pg.norm == pytest.approx(norm)
    pg.reset(100 * coefficients)
    assert pg.norm == pytest.approx(1.0)
    assert not np.array_equal(first, there)


def test_nothing_to_do():
    inputs, _ = make_inputs(3, 5)
    pg = ci.ProjectedGradient(inputs, 1.0)
    np.testing.assert_array_equal(pg.step(np.zeros((3, 2))), 0.0)
    assert pg.update.rank == 0
    assert pg.last.gap == 0.0
    pg = ci.ProjectedGradient(inputs, 0.0, step=1.0, momentum=True)
    np.testing.assert_array_equal(pg.step(np.ones((3, 2))), 0.0)


def test_slack_is_a_private_input_of_each_row():
    rng = np.random.default_rng(7)
    inputs, _ = make_inputs(4, 6)
    gradient = rng.normal(size=(4, 3))
    private = np.sqrt(2.0 * np.mean(np.sum(inputs**2, axis=1)))
    wide = np.hstack([inputs, private * np.eye(4)])
    slack = ci.ProjectedGradient(inputs, 1.0, slack=2.0)
    plain = ci.ProjectedGradient(wide, 1.0)
    np.testing.assert_allclose(slack.step(gradient), plain.step(gradient), atol=1e-13)
    np.testing.assert_allclose(
        slack.update.matrix(), plain.update.matrix()[:, :6], atol=1e-13
    )


@pytest.mark.parametrize("layout", NUMPY_LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_every_kind(layout, dtype):
    inputs, _ = make_inputs(4, 6)
    gradient = np.random.default_rng(8).normal(size=(4, 7)).astype(dtype)
    expected = ci.ProjectedGradient(inputs, 1.0).step(gradient.astype(np.float64))
    given_gradient = NUMPY_LAYOUTS[layout](gradient)
    got = ci.ProjectedGradient(inputs, 1.0).step(given_gradient, loss=1.0)
    np.testing.assert_array_equal(got, expected)


def test_gradients_of_torch_with_leading_axes():
    torch = pytest.importorskip("torch")
    inputs, _ = make_inputs(6, 6)
    gradient = np.random.default_rng(9).normal(size=(6, 7)).astype(BFLOAT16)
    expected = ci.ProjectedGradient(inputs, 1.0).step(gradient)
    tensor = to_torch(gradient).reshape(2, 3, 7)
    assert tensor.dtype == torch.bfloat16
    pg = ci.ProjectedGradient(torch.from_numpy(inputs), 1.0)
    np.testing.assert_array_equal(pg.step(tensor, torch.tensor(3.0)), expected)


@given(
    m=st.integers(0, 5),
    d_in=st.integers(1, 6),
    d_out=st.integers(0, 5),
    scale=st.sampled_from([0.0, 1e-100, 1.0, 1e100]),
    radius=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
    momentum=st.booleans(),
)
def test_stays_in_the_ball(m, d_in, d_out, scale, radius, momentum):
    rng = np.random.default_rng(m + 7 * d_in + 50 * d_out)
    inputs = rng.normal(size=(m, d_in))
    pg = ci.ProjectedGradient(inputs, radius, momentum=momentum, length=0.8)
    for _ in range(4):
        d = pg.step(rng.normal(size=(m, d_out)) * scale)
        assert d.shape == (m, d_out)
        assert np.isfinite(d).all()
        assert pg.norm <= radius * (1 + 1e-9)
        assert pg.update.norm <= radius * (1 + 1e-9)


def test_refusals():
    inputs, _ = make_inputs(3, 5)
    with pytest.raises(ci.ArgumentError, match="radius: got -1"):
        ci.ProjectedGradient(inputs, -1)
    with pytest.raises(ci.ArgumentError, match="step: got 0"):
        ci.ProjectedGradient(inputs, 1, step=0)
    with pytest.raises(ci.ArgumentError, match="length: got nan"):
        ci.ProjectedGradient(inputs, 1, length=np.nan)
    pg = ci.ProjectedGradient(inputs, 1)
    with pytest.raises(ci.ArgumentError, match="before the first step"):
        pg.displacements  # noqa: B018
    with pytest.raises(ci.ArgumentError, match="loss: none"):
        pg.restore_best()
    with pytest.raises(ci.ArgumentError, match=r"grad_outputs.*one row"):
        pg.step(np.zeros((2, 4)))
    with pytest.raises(ci.ArgumentError, match=r"response.*expected \(3, 4\)"):
        pg.step(np.zeros((3, 4)), response=np.zeros((3, 5)))
    for length in (0.0, -1.0, np.nan):
        with pytest.raises(ci.ArgumentError, match=f"length: got {length}"):
            pg.step(np.zeros((3, 4)), length=length)
    pg.step(np.zeros((3, 4)))
    with pytest.raises(ci.ArgumentError, match=r"expected \(3, 4\)"):
        pg.step(np.zeros((3, 5)))
    with pytest.raises(ci.ArgumentError, match=r"grad_outputs.*expected \(3, 4\)"):
        pg.respond(np.zeros((3, 5)))
    with pytest.raises(ci.ArgumentError, match="coefficients: has 2 rows"):
        pg.reset(np.zeros((2, 4)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("loss", [None, 1.0])
def test_bad_gradient_is_named_and_changes_nothing(bad, loss):
    inputs, _ = make_inputs(3, 5)
    pg = ci.ProjectedGradient(inputs, 1)
    before = pg.step(np.ones((3, 4)))
    gradient = np.ones((3, 4))
    gradient[1, 2] = bad
    with pytest.raises(ci.NonFiniteError, match=r"grad_outputs.*row 1, column 2"):
        pg.step(gradient, loss)
    with pytest.raises(ci.NonFiniteError, match=r"grad_outputs.*row 1, column 2"):
        pg.respond(gradient)
    with pytest.raises(ci.NonFiniteError, match=r"response.*row 1, column 2"):
        pg.step(np.ones((3, 4)), loss, response=gradient)
    np.testing.assert_array_equal(pg.displacements, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_is_never_the_least(bad):
    inputs, _ = make_inputs(3, 5)
    pg = ci.ProjectedGradient(inputs, 1)
    with pytest.raises(ci.NonFiniteError, match=f"loss: got {bad}"):
        pg.step(np.ones((3, 4)), bad)
    pg.step(np.ones((3, 4)), 2.0)
    pg.step(np.ones((3, 4)), 1.0)
    if bad < 0:
        with pytest.raises(ci.NonFiniteError, match="loss: got -inf"):
            pg.step(np.ones((3, 4)), bad)
    else:
        pg.step(np.ones((3, 4)), bad)
    assert pg.best_loss == 1.0
