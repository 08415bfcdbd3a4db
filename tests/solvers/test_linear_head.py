# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.containers import DTYPES, NUMPY_LAYOUTS, to_torch
from support.interrupts import interrupt_after
from support.reference_region import FullMatrixTsr

import cintervene as ci


def make(m=4, d_in=6, vocab=9, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(m, d_in))
    preserve = ci.Preserve(rng.normal(size=(8, d_in)), ridge=0.3)
    return inputs, rng.normal(size=(m, vocab)) * scale, preserve


def metric_of(preserve, d_in):
    return np.eye(d_in) if preserve is None else preserve.gram(np.eye(d_in))


def losses_of(change, inputs, logits, sets):
    return reference.set_nll(logits + inputs @ change.T, sets)


SINGLE, PAIR = [3], [1, 5]
OWN = [[0], [4], [4], [8]]


@pytest.mark.parametrize("token_ids", [SINGLE, PAIR, OWN], ids=str)
@pytest.mark.parametrize("with_preserve", [False, True])
@pytest.mark.parametrize("radius", [0.4, 3.0, 50.0])
def test_tsr_equals_full_matrices(token_ids, with_preserve, radius):
    inputs, logits, preserve = make()
    preserve = preserve if with_preserve else None
    sets = token_ids if token_ids is OWN else [token_ids] * 4
    solution = ci.tsr(
        inputs, logits, token_ids, radius, preserve, tolerance=0, max_iterations=12
    )
    oracle = FullMatrixTsr(inputs, logits, sets, radius, metric_of(preserve, 6))
    for _ in range(solution.iterations):
        oracle.advance()
    assert solution.iterations == 12
    # Where only rounding is left of the stationarity, it decides which step finds that.
    atol = max(1e-8, oracle.last_move)
    np.testing.assert_allclose(solution.update.matrix(), oracle.here, atol=atol)
    assert solution.loss == pytest.approx(oracle.loss(oracle.here)[0] / 4, abs=1e-9)
    assert len(solution.history["loss"]) == solution.iterations + 1


@pytest.mark.parametrize("token_ids", [SINGLE, OWN], ids=str)
@pytest.mark.parametrize("radius", [0.4, 3.0])
def test_tsr_ends_where_full_matrices_end(token_ids, radius):
    inputs, logits, preserve = make(seed=12)
    sets = token_ids if token_ids is OWN else [token_ids] * 4
    solution = ci.tsr(inputs, logits, token_ids, radius, preserve, tolerance=0)
    oracle = FullMatrixTsr(inputs, logits, sets, radius, metric_of(preserve, 6))
    for _ in range(300):
        oracle.advance()
    assert solution.loss == pytest.approx(oracle.loss(oracle.here)[0] / 4, abs=1e-11)
    # Where the loss is flat to the last digit, it tells half of the change's digits;
    # steps that do not look at it find the others.
    ours, minimum = solution.update.matrix(), oracle.polish(oracle.here)
    np.testing.assert_allclose(ours, minimum, atol=1e-12)
    np.testing.assert_allclose(oracle.polish(ours), minimum, atol=1e-13)


def by_slsqp(inputs, logits, sets, radius, metric, start, worst=False):
    """The same problem for a general solver: the mean, or minus the worst, loss."""
    optimize = pytest.importorskip("scipy.optimize")
    shape = logits.shape[1], inputs.shape[1]

    def value(x):
        loss, grad = losses_of(x[:-1].reshape(shape), inputs, logits, sets)
        flat = (grad.T @ inputs / len(logits)).ravel()
        return (
            (-x[-1], -np.eye(1, len(x), len(x) - 1)[0])
            if worst
            else (
                loss.mean(),
                np.append(flat, 0.0),
            )
        )

    def room(x):
        change = x[:-1].reshape(shape)
        inside = radius**2 - np.sum((change @ metric) * change)
        losses = losses_of(change, inputs, logits, sets)[0]
        return np.append(losses - x[-1], inside) if worst else np.array([inside])

    first = losses_of(start, inputs, logits, sets)[0].min()
    found = optimize.minimize(
        value,
        np.append(start.ravel(), first),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": room},
        options={"maxiter": 500, "ftol": 1e-13},
    )
    return -found.fun if worst else found.fun


@pytest.mark.parametrize("radius", [0.3, 2.0])
@pytest.mark.parametrize("token_ids", [SINGLE, PAIR], ids=str)
def test_tsr_agrees_with_a_general_solver(radius, token_ids):
    inputs, logits, preserve = make(3, 3, 6, seed=1)
    solution = ci.tsr(inputs, logits, token_ids, radius, preserve, tolerance=1e-10)
    sets, metric = [token_ids] * 3, metric_of(preserve, 3)
    assert solution.status is ci.Status.CONVERGED
    for seed in range(3):
        start = np.random.default_rng(seed).normal(size=(6, 3)) * 0.1 * seed
        other = by_slsqp(inputs, logits, sets, radius, metric, start)
        assert solution.bound <= other + 1e-7
        assert solution.loss == pytest.approx(other, abs=1e-6)
    assert solution.losses.mean() == pytest.approx(solution.loss, abs=1e-12)


@pytest.mark.parametrize("radius", [0.3, 2.0])
@pytest.mark.parametrize("token_ids", [SINGLE, PAIR], ids=str)
def test_arr_agrees_with_a_general_solver(radius, token_ids):
    inputs, logits, preserve = make(3, 3, 6, seed=2)
    solution = ci.arr(inputs, logits, token_ids, radius, preserve, tolerance=1e-9)
    sets, metric = [token_ids] * 3, metric_of(preserve, 3)
    assert solution.status is ci.Status.CONVERGED
    start = 0.9 * solution.update.matrix()
    other = by_slsqp(inputs, logits, sets, radius, metric, start, worst=True)
    assert solution.loss == pytest.approx(other, abs=1e-6)
    for seed in range(3):
        start = np.random.default_rng(seed).normal(size=(6, 3)) * 0.1
        other = by_slsqp(inputs, logits, sets, radius, metric, start, worst=True)
        assert other <= solution.bound + 1e-7


def linearised_gain(solution, inputs, logits, sets, radius, metric, sign):
    """Frank-Wolfe gap of the weighted losses, from full matrices."""
    change = solution.update.matrix()
    losses, grad = losses_of(change, inputs, logits, sets)
    gradient = sign * (grad * solution.weights[:, None]).T @ inputs
    dual_norm = np.sqrt(np.sum(gradient * np.linalg.solve(metric, gradient.T).T))
    reach = radius * dual_norm - np.sum(gradient * change)
    return losses @ solution.weights, reach


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
@pytest.mark.parametrize("steps", [0, 3, 200])
def test_stationarity_is_the_gain_of_the_linear_model(solve, steps):
    inputs, logits, preserve = make(seed=3)
    solution = solve(
        inputs, logits, OWN, 1.5, preserve, tolerance=1e-9, max_iterations=steps
    )
    sign = -1.0 if solve is ci.tsr else 1.0
    mixed, reach = linearised_gain(
        solution, inputs, logits, OWN, 1.5, metric_of(preserve, 6), sign
    )
    expected = reach if solve is ci.tsr else mixed + reach - solution.loss
    assert solution.stationarity == pytest.approx(expected, abs=1e-10)
    assert (solution.stationarity < 1e-8) == (steps == 200)


def random_change(rng, vocab, d_in, radius, metric):
    change = rng.normal(size=(vocab, d_in)) @ np.diag(rng.exponential(size=d_in))
    norm = np.sqrt(np.sum((change @ metric) * change))
    return change * (radius / norm if norm > 0 else 0.0)


@given(
    m=st.integers(1, 5),
    d_in=st.integers(1, 5),
    vocab=st.integers(1, 8),
    size=st.integers(1, 3),
    radius=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_bounds_hold_for_every_change(m, d_in, vocab, size, radius, seed):
    rng = np.random.default_rng(seed)
    inputs, logits, preserve = make(m, d_in, vocab, seed)
    sets = [rng.choice(vocab, min(size, vocab), replace=False) for _ in range(m)]
    safe = ci.tsr(inputs, logits, sets, radius, preserve, max_iterations=20)
    away = ci.arr(inputs, logits, sets, radius, preserve, max_iterations=20)
    metric = metric_of(preserve, d_in)
    for solution in (safe, away):
        assert solution.norm <= radius * (1 + 1e-9)
        assert preserve.norm(solution.update) <= radius * (1 + 1e-9) + 1e-12
        np.testing.assert_allclose(solution.weights.sum(), 1.0)
        assert (solution.weights >= 0).all()
        assert solution.stationarity >= -1e-9
    for _ in range(20):
        change = random_change(rng, vocab, d_in, radius, metric)
        losses = losses_of(change, inputs, logits, sets)[0]
        assert losses.mean() >= safe.bound - 1e-9
        assert losses.min() <= away.bound + 1e-9
    assert safe.loss >= safe.bound - 1e-9
    assert away.loss <= away.bound + 1e-9


def test_single_tokens_certify_tsr_and_small_balls_arr():
    inputs, logits, preserve = make(seed=4)
    assert ci.tsr(inputs, logits, OWN, 2.0, preserve).certified
    near = ci.arr(inputs, logits, OWN, 0.05, preserve)
    assert near.certified
    far = ci.arr(inputs, logits, OWN, 20.0, preserve)
    assert far.status is ci.Status.CONVERGED
    assert not far.certified


@pytest.mark.parametrize(("share", "proved"), [(0.95, True), (1.3, False)])
def test_arr_of_one_prompt_is_proved_up_to_the_stated_radius(share, proved):
    inputs, logits, _ = make(1, 4, 7, seed=13)
    radius = 1.0
    for _ in range(30):
        solution = ci.arr(inputs, logits, [2], radius, tolerance=1e-12)
        moved = reference.softmax(logits + solution.displacements)[0]
        radius = (
            share * 2 * np.linalg.norm(moved - np.eye(7)[2]) / np.linalg.norm(inputs)
        )
    assert solution.certified == proved


def test_arr_raises_the_worst_prompt():
    inputs, logits, preserve = make(6, 9, 12, seed=5)
    solution = ci.arr(inputs, logits, [2], 1.0, preserve, tolerance=1e-8)
    assert (np.diff(solution.history["loss"]) >= -1e-12).all()
    before = ci.set_nll(logits, [2])
    assert solution.loss > before.min() + 0.5
    assert solution.losses.min() == pytest.approx(solution.loss, abs=1e-12)
    idle = solution.weights == 0.0
    assert idle.any()
    np.testing.assert_allclose(solution.losses[~idle], solution.loss, atol=1e-4)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_update_moves_the_logits_as_reported(solve):
    inputs, logits, preserve = make(seed=6)
    solution = solve(inputs, logits, PAIR, 1.0, preserve)
    moved = logits + inputs @ solution.update.matrix().T
    np.testing.assert_allclose(moved - logits, solution.displacements, atol=1e-12)
    np.testing.assert_allclose(ci.set_nll(moved, PAIR), solution.losses, atol=1e-12)
    assert preserve.norm(solution.update) == pytest.approx(solution.norm)
    assert "RegionSolution(CONVERGED" in repr(solution)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_slack_is_a_private_input_of_each_row(solve):
    inputs, logits, _ = make(seed=7)
    private = np.sqrt(2.0 * np.mean(np.sum(inputs**2, axis=1)))
    wide = np.hstack([inputs, private * np.eye(4)])
    options = {"tolerance": 1e-9}
    slack = solve(inputs, logits, SINGLE, 1.0, slack=2.0, **options)
    plain = solve(wide, logits, SINGLE, 1.0, **options)
    assert slack.loss == pytest.approx(plain.loss, abs=1e-8)
    np.testing.assert_allclose(
        slack.update.matrix(), plain.update.matrix()[:, :6], atol=1e-4
    )
    own = ci.set_nll(logits + inputs @ slack.update.matrix().T, SINGLE)
    np.testing.assert_allclose(slack.losses, own, atol=1e-12)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_storage_types(kernels, solve, dtype):
    inputs, logits, preserve = make(7, 30, 1200, seed=8)
    rounded = logits.astype(dtype)
    solution = solve(inputs, rounded, [5], 2.0, preserve, tolerance=1e-5)
    wide = solve(inputs, rounded.astype(np.float64), [5], 2.0, preserve, tolerance=1e-9)
    assert solution.status is ci.Status.CONVERGED
    assert solution.loss == pytest.approx(wide.loss, abs=1e-3)
    assert solution.loss <= wide.loss + 1e-4 if solve is ci.tsr else True
    lanes = np.float64 if dtype == np.float64 else np.float32
    assert solution.displacements.dtype == solution.update.left.dtype == lanes


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
@pytest.mark.parametrize("layout", NUMPY_LAYOUTS)
def test_layouts(solve, layout):
    inputs, logits, _ = make(seed=9)
    expected = solve(inputs, logits, PAIR, 1.0)
    arrange = NUMPY_LAYOUTS[layout]
    got = solve(arrange(inputs), arrange(logits), PAIR, 1.0)
    np.testing.assert_array_equal(got.displacements, expected.displacements)
    got = solve(to_torch(inputs), to_torch(logits), PAIR, 1.0)
    np.testing.assert_array_equal(got.displacements, expected.displacements)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_nothing_moves_without_radius_or_inputs(solve):
    inputs, logits, _ = make()
    still = solve(inputs, logits, SINGLE, 0.0)
    assert still.update.rank == 0
    assert still.status is ci.Status.CONVERGED
    assert solve(np.zeros((4, 6)), logits, SINGLE, 1.0).update.rank == 0


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_repeated_prompts_and_masked_tokens(solve):
    inputs, logits, _ = make()
    inputs[1], logits[1] = inputs[0], logits[0]
    logits[:, 7] = -np.inf
    solution = solve(inputs, logits, SINGLE, 1.0)
    assert solution.status is ci.Status.CONVERGED
    np.testing.assert_array_equal(solution.displacements[:, 7], 0.0)
    assert solution.losses[0] == pytest.approx(solution.losses[1])


def test_iteration_limit_is_a_status():
    inputs, logits, _ = make()
    solution = ci.tsr(inputs, logits, PAIR, 5.0, max_iterations=1)
    assert solution.status is ci.Status.ITERATION_LIMIT
    assert solution.iterations == 1


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros((3, 9))}, r"logits: got shape \(3, 9\)"),
        ({"logits": np.zeros((4, 0))}, "logits: got shape"),
        ({"inputs": np.zeros(6)}, "inputs: got shape"),
        ({"radius": -1.0}, "radius: got -1"),
        ({"radius": np.nan}, "radius: got nan"),
        ({"slack": -1.0}, "slack: got -1"),
        ({"tolerance": np.nan}, "tolerance: got nan"),
        ({"max_iterations": -1}, "max_iterations: got -1"),
        ({"max_iterations": 1 << 63}, "max_iterations: got 9.*less than 2"),
        ({"token_ids": [[1], [2]]}, "2 sets for 4 rows"),
        ({"token_ids": [9]}, "got 9"),
    ],
)
def test_errors_name_the_argument(solve, change, message):
    inputs, logits, _ = make()
    arguments = {"inputs": inputs, "logits": logits, "token_ids": [1], "radius": 1.0}
    with pytest.raises(ci.ArgumentError, match=message):
        solve(**(arguments | change))


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_bad_logits_are_named(solve):
    inputs, logits, _ = make()
    logits[2, 5] = np.nan
    with pytest.raises(ci.NonFiniteError, match=r"logits.*row 2, column 5"):
        solve(inputs, logits, SINGLE, 1.0)
    logits[2] = 0.0
    logits[1, 3] = -np.inf
    with pytest.raises(ci.NonFiniteError, match="set is -inf"):
        solve(inputs, logits, SINGLE, 1.0)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_signals_interrupt_a_long_solve(solve):
    rng = np.random.default_rng(11)
    inputs, logits = rng.normal(size=(16, 16)), rng.normal(size=(16, 60000))

    with pytest.raises(KeyboardInterrupt), interrupt_after(0.1):
        solve(inputs, logits, [1, 2], 1e6, tolerance=0.0, max_iterations=10**12)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
@pytest.mark.parametrize("radius", [1e-160, 1e151, 1e300])
def test_radius_without_a_square_is_refused(solve, radius):
    with pytest.raises(ci.ArgumentError, match="radius: the largest element is"):
        solve(np.eye(2), np.zeros((2, 3)), token_ids=[0], radius=radius)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e-30, 1e30, 1e140, 1e151, 1e300])
@pytest.mark.parametrize("what", ["logits", "inputs and radius", "slack"])
def test_extreme_sizes_give_figures_or_a_clear_error(solve, size, what):
    rng = np.random.default_rng(0)
    inputs, logits = rng.standard_normal((3, 4)), rng.standard_normal((3, 6))
    logits[:, 5] = -np.inf
    radius, slack = 1.0, 0.0
    if what == "logits":
        logits *= size
    elif what == "slack":
        inputs *= min(size, 1e149)
        slack = size
    else:
        inputs *= size
        radius = size
    try:
        found = solve(inputs, logits, [0, 1], radius, slack=slack, max_iterations=100)
    except ci.ArgumentError as error:
        assert re.match("logits|inputs|radius|slack", str(error))  # noqa: PT017
        assert not 1e-150 <= size <= 1e70
    else:
        figures = found.loss, found.bound, found.stationarity, found.norm
        assert np.isfinite(figures).all()
        assert np.isfinite(found.losses).all()
        assert np.isfinite(found.displacements).all()
        assert found.norm <= radius * (1 + 1e-9)


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_losses_beyond_all_differences_are_refused(solve):
    logits = [[0.0, 1e200, -1e200]]
    with pytest.raises(ci.ArgumentError, match=r"a loss is 1e\+200 nats"):
        solve([[1.0, 0.0]], logits, token_ids=[0], radius=1.0)


def test_slack_that_overflows_is_refused():
    with pytest.raises(ci.ArgumentError, match="slack: got 1e"):
        ci.pcr([[1e149]], [[0.0]], [[0.5]], 1.0, slack=1e149)
