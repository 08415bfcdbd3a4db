# SPDX-License-Identifier: Apache-2.0
"""TSR and ARR on arrays: towards the safe region, away from the risk region."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers.losses import TokenIds, set_nll, token_sets
from cintervene.solvers.preserve import Preserve, dual_inputs
from cintervene.solvers.problem import gram_matrices, matrix
from cintervene.solvers.solution import Status
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats, shape_of
from cintervene.utils.html import html_facts
from cintervene.utils.scale import GREATEST, check_scale
from cintervene.utils.validation import check_not_negative, check_whole, number

__all__ = ["RegionSolution", "arr", "tsr"]

_HISTORY = ("loss", "stationarity", "bound", "step")
_HISTORY_ROWS = 10_000
# How near the bound a loss must be, relative to max(1, loss), to count as proved.
_PROVED = 1e-4


@dataclass(frozen=True, repr=False)
class RegionSolution:
    """The change of a head's weight that :func:`tsr` or :func:`arr` found.

    With slack, `loss`, `stationarity`, `bound` and `norm` are those of the problem that
    was solved, in which each prompt took up a share by itself; `losses` and
    `displacements` are what the update does without it.

    Attributes
    ----------
    update : LowRankUpdate
        The change of the head's weight (vocab, d_in), of rank at most the number of
        prompts.
    loss : float
        The objective: the mean loss of `tsr`, the least loss of `arr`, in nats.
    losses : ndarray, shape (m,)
        Loss of each prompt after the change, evaluated anew.
    weights : ndarray, shape (m,)
        How the prompts are mixed: on the simplex, 1/m each for `tsr`; for `arr`, zero
        for all prompts but the worst ones.
    stationarity : float
        By how much the objective, with the losses linearised, could still be improved
        within the ball: the Frank-Wolfe gap. Zero at stationary points only.
    bound : float
        No change in the ball has a mean loss below (`tsr`), or a least loss above
        (`arr`), this.
    norm : float
        Norm of the change, at most the radius.
    status : Status
        How the solve ended.
    iterations : int
        Steps taken.
    displacements : ndarray, shape (m, vocab)
        Change of the logits; float32, or float64 for float64 logits.
    history : dict of ndarray
        `loss`, `stationarity`, `bound` and the `step` then taken, one entry for each
        of the first iterations, the start included.
    """

    update: LowRankUpdate
    loss: float
    losses: Floats
    weights: Floats
    stationarity: float
    bound: float
    norm: float
    status: Status
    iterations: int
    displacements: npt.NDArray[Any]
    history: dict[str, Floats]

    @property
    def gap(self) -> float:
        """How far the objective may be from the best in the ball, in nats."""
        return abs(self.loss - self.bound)

    @property
    def certified(self) -> bool:
        """Whether the bound proves the objective best, to 1e-4 of max(1, loss)."""
        return self.gap <= _PROVED * max(1.0, abs(self.loss))

    def __repr__(self) -> str:
        """Return the facts that decide whether to use it, on one line."""
        return (
            f"RegionSolution({self.status.name}, loss={self.loss:.6g}, "
            f"norm={self.norm:.4g}, rank={self.update.rank}, "
            f"iterations={self.iterations}, stationarity={self.stationarity:.1e}, "
            f"gap={self.gap:.1e})"
        )

    def _repr_html_(self) -> str:
        """What notebooks show: the same facts, and what they prove."""
        facts = {
            "proved to be optimal": "yes" if self.certified else "no",
            "status": self.status.name,
            "loss": f"{self.loss:.6g}",
            "bound": f"{self.bound:.6g}",
            "gap": f"{self.gap:.1e}",
            "stationarity": f"{self.stationarity:.1e}",
            "norm": f"{self.norm:.4g}",
            "rank": str(self.update.rank),
            "iterations": str(self.iterations),
        }
        return html_facts("RegionSolution", facts.items())


def tsr(
    inputs: Any,
    logits: Any,
    token_ids: TokenIds,
    radius: float,
    preserve: Preserve | None = None,
    slack: float = 0.0,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> RegionSolution:
    r"""Move a head towards the safe region: make safe tokens likely.

    ``min over ||delta|| <= radius of mean_j -log sum_{k in K_j} p_k(j)``, where row j
    of the logits moves to ``logits[j] + delta @ inputs[j]`` and p is its softmax.

    Parameters
    ----------
    inputs : array_like, shape (m, d_in)
        Inputs of the head, one row a prompt (or a token position).
    logits : array_like, shape (m, vocab)
        Outputs of the head for them; NumPy, torch or JAX, any float dtype. ``-inf``
        masks a token.
    token_ids : array_like of int, shape (k,), or one such set for each row
        The safe tokens, as in :func:`cintervene.set_nll`.
    radius : float
        Largest norm of the change: Frobenius, or that of `preserve`.
    preserve : Preserve, optional
        Measure the change by what it does to benign inputs.
    slack : float
        As in :func:`cintervene.pcr`: each prompt may take up part of its displacement
        by itself, which the update then leaves out.
    tolerance : float
        Stationarity to stop at, relative to max(1, loss). Float32 logits resolve
        about 1e-6. With 0, :func:`tsr` takes all steps, and goes on to the last digits
        of the change after the stationarity has become rounding.
    max_iterations : int
        Steps after which to give up.

    Returns
    -------
    RegionSolution
        Not converging is a result, not an error: see its `status`.

    Raises
    ------
    ArgumentError
        Shapes do not match, or a number makes no sense.
    NonFiniteError
        An input is NaN or infinite, a logit is NaN or ``+inf``, or all tokens of a
        set are masked.

    Notes
    -----
    With single tokens the problem is convex, and ``loss - stationarity`` bounds the
    optimum from below: a certificate. With larger sets it is not convex, since
    ``-log sum exp`` of the set is concave; the bound then allows for that curvature,
    and is close only while the ball is small. The iteration is projected gradient
    preconditioned by P with Nesterov's momentum, a line search, and restarts, on
    coefficients of the inputs; a step costs O(vocab m**2) and never touches a matrix
    of the size of the weight.

    References
    ----------
    arXiv 2510.03567, TSR; docs/methods/linear_heads.md.

    Examples
    --------
    Token 0 of three becomes likelier after both prompts:

    >>> import numpy as np
    >>> import cintervene as ci
    >>> solution = ci.tsr(np.eye(2), np.zeros((2, 3)), token_ids=[0], radius=1.0)
    >>> solution.certified
    True
    >>> solution.losses.round(3)  # log 3 = 1.099 before
    array([0.61, 0.61])
    """
    limits = radius, tolerance, max_iterations
    return _solve(_core.tsr, inputs, logits, token_ids, limits, preserve, slack)


def arr(
    inputs: Any,
    logits: Any,
    token_ids: TokenIds,
    radius: float,
    preserve: Preserve | None = None,
    slack: float = 0.0,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> RegionSolution:
    r"""Move a head away from the risk region: make harmful tokens unlikely.

    ``max over ||delta|| <= radius of min_j -log sum_{k in K_j} p_k(j)``: the worst
    prompt counts, which is a mixture of prompts with weights on the simplex that are
    chosen against us.

    Parameters
    ----------
    inputs, logits, radius, preserve, slack, tolerance, max_iterations
        As in :func:`tsr`.
    token_ids : array_like of int, shape (k,), or one such set for each row
        The harmful tokens, as in :func:`cintervene.set_nll`.

    Returns
    -------
    RegionSolution
        With the weights of the prompts, and a bound that no change in the ball can
        exceed.

    Raises
    ------
    ArgumentError, NonFiniteError
        As in :func:`tsr`.

    Notes
    -----
    The losses are never concave in delta, so what is found is a stationary point, and
    `stationarity` its measure. But the sphere curves too: where the ball is small
    against the gradients (for one prompt, ``radius <= 2 ||p - e_k|| / ||input||``) the
    bound closes and proves it the global optimum. Each step solves, in the weights,
    the same problem with linearised losses; for single tokens, which are convex, the
    least loss never falls.

    References
    ----------
    arXiv 2510.03567, ARR; docs/methods/linear_heads.md.

    Examples
    --------
    Token 0 of three becomes unlikely after both prompts, which weigh the same:

    >>> import numpy as np
    >>> import cintervene as ci
    >>> solution = ci.arr(np.eye(2), np.zeros((2, 3)), token_ids=[0], radius=1.0)
    >>> solution.losses.round(3)  # log 3 = 1.099 before
    array([1.75, 1.75])
    >>> solution.weights.round(3)
    array([0.5, 0.5])
    """
    limits = radius, tolerance, max_iterations
    return _solve(_core.arr, inputs, logits, token_ids, limits, preserve, slack)


def _solve(
    solver: Callable[..., "_core.Region"],
    inputs: Any,
    logits: Any,
    token_ids: TokenIds,
    limits: tuple[float, float, int],
    preserve: Preserve | None,
    slack: float,
) -> RegionSolution:
    h = matrix(inputs, "inputs")
    shape = shape_of(logits, "logits")
    if len(shape) != 2 or len(h) != shape[0] or 0 in shape:
        raise ArgumentError(
            f"logits: got shape {shape}; expected ({len(h)}, vocab), one row for each "
            "row of inputs, and at least one"
        )
    ids, offsets = token_sets(token_ids, shape[0], shape[1])
    radius, tolerance, max_iterations = limits
    check_not_negative(radius=radius)
    check_scale("radius", np.array([radius], np.float64))
    if not number(tolerance) >= 0.0:
        raise ArgumentError(f"tolerance: got {tolerance!r}; expected a number >= 0")
    check_whole(0, max_iterations=max_iterations)
    dual = dual_inputs(h, preserve)
    true_gram, gram = gram_matrices(h, dual, slack)
    result = solver(
        gram,
        logits,
        ids,
        offsets,
        float(radius),
        float(tolerance),
        int(max_iterations),
        min(int(max_iterations) + 1, _HISTORY_ROWS),
    )
    _check_losses(result)
    mixes = solver is _core.arr
    return _solution(result, mixes, dual, true_gram, logits, token_ids)


def _check_losses(result: "_core.Region") -> None:
    """Refuse logits, and changes of them, so large that differences mean nothing."""
    figures = (result["loss"], result["bound"], result["stationarity"])
    size = max(abs(figure) for figure in figures)
    if not all(abs(figure) <= GREATEST for figure in figures):
        raise ArgumentError(
            f"logits: a loss is {size:.3g} nats in size; expected {GREATEST:g} at "
            "most. Logits, or the radius times the inputs, are in another unit"
        )


def _solution(
    result: "_core.Region",
    mixes: bool,
    dual: Floats,
    true_gram: Floats,
    logits: Any,
    token_ids: TokenIds,
) -> RegionSolution:
    coefficients = result["coefficients"]
    used = np.any(coefficients != 0.0, axis=1)
    lanes = coefficients.dtype
    displacements = _core.product_nn(true_gram, coefficients)
    moved = _core.as_float64(logits)
    moved += displacements
    weights = result["weights"] if mixes else np.full(len(moved), 1.0 / len(moved))
    history = result["history"][: result["history_rows"]]
    return RegionSolution(
        update=LowRankUpdate(
            np.ascontiguousarray(coefficients[used].T), dual[used].astype(lanes)
        ),
        loss=result["loss"],
        losses=set_nll(moved, token_ids),
        weights=weights,
        stationarity=result["stationarity"],
        bound=result["bound"],
        norm=result["norm"],
        status=Status(result["outcome"]),
        iterations=result["iterations"],
        displacements=displacements.astype(lanes),
        history=dict(zip(_HISTORY, history.T, strict=True)),
    )
