# SPDX-License-Identifier: Apache-2.0
"""Projected gradient for a weight whose loss somebody else differentiates."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cintervene import _core
from cintervene.errors import ArgumentError, NonFiniteError
from cintervene.solvers.preserve import Preserve, dual_inputs
from cintervene.solvers.problem import gram_matrices, matrix
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats, shape_of
from cintervene.utils.validation import check_not_negative, check_positive

__all__ = ["GradientStep", "ProjectedGradient"]

# What becomes of the steps when the loss rises, and when it does not.
_SHORTER, _LONGER = 0.5, 1.2


@dataclass(frozen=True)
class GradientStep:
    """What a step of :class:`ProjectedGradient` was.

    Attributes
    ----------
    step : float
        Step size taken: ``delta <- delta - step * gradient``.
    gradient_norm : float
        Norm of the gradient with respect to the change, dual to ``||.||_P``.
    gap : float
        ``max <gradient, delta - v>`` over all v in the ball, the Frank-Wolfe gap
        where the gradient was taken. It is zero at a stationary point only, and no
        point of the ball has a convex loss that is lower by more.
    restarted : bool
        The momentum led uphill and was dropped.
    rejected : bool
        The loss had risen, so the step started from the best point instead.
    """

    step: float
    gradient_norm: float
    gap: float
    restarted: bool
    rejected: bool


@dataclass(frozen=True)
class _Best:
    loss: float
    point: Floats
    gradient: Floats


@dataclass(frozen=True)
class _State:
    """Where a descent is. Never changed, only replaced, so that it is always whole.

    Attributes
    ----------
    here, trail : ndarray (2, m, d_out), or None
        Coefficients and displacements at the present point, and at the one before it
        where there is momentum.
    age : float
        Of the momentum.
    norm : float
        Of the change.
    share : float
        What the lengths of steps are multiplied with.
    best : _Best or None
    last : GradientStep or None
    """

    here: Floats | None = None
    trail: Floats | None = None
    age: float = 1.0
    norm: float = 0.0
    share: float = 1.0
    best: _Best | None = None
    last: GradientStep | None = None

    def at(self, point: Floats) -> "_State":
        """The state of standing still at a point, without momentum."""
        return replace(self, here=point, trail=point, age=1.0, norm=_norm(point))


class ProjectedGradient:
    r"""Descent on displacements of a layer's outputs, within a ball of weight changes.

    For a loss that a framework differentiates: the change delta of a weight
    (d_out, d_in) enters only through ``D = inputs @ delta.T``, what it adds to the
    layer's outputs. Give the derivative of the loss with respect to the outputs,
    get the next D; the matrix delta itself is never formed. The iterates are those
    of projected gradient on delta, preconditioned by P.

    Parameters
    ----------
    inputs : array_like, shape (m, d_in)
        Inputs of the layer at every position that the loss depends on. Equal rows
        are fine. Memory: an (m, m) matrix, and a few (m, d_out) ones, of float64.
    radius : float
        Largest norm of the change: Frobenius, or that of `preserve`.
    preserve : Preserve, optional
        Measure the change by what it does to benign inputs.
    slack : float
        As in :func:`cintervene.pcr`: each row may take up part of its displacement
        by itself. `displacements` and `norm` then include that share, which `update`
        leaves out.
    step : float, optional
        Step size. Default: steps of a given length.
    length : float
        Length of a step, before projection, in units of the radius.
    momentum : bool
        Accelerate as Nesterov does, dropping the momentum when it leads uphill. Best
        with a fixed `step` and a convex loss.

    Raises
    ------
    ArgumentError
        A shape or a number makes no sense.
    NonFiniteError
        An input is NaN or infinite.

    Notes
    -----
    A step that fails or is interrupted leaves the descent as it was.

    With ``K = inputs P^-1`` and ``G = inputs P^-1 inputs'``, a change is ``A' K`` by
    its coefficients A (m, d_out), ``D = G A`` and ``||delta||_P**2 = <A, D>``. A step
    is ``A <- A - t grad`` and ``D <- D - t G grad``, and the projection a scaling. G is
    never inverted.

    References
    ----------
    arXiv 2510.03567, TSR; docs/methods/tsr.md.

    Examples
    --------
    The loss is any function of the layer's outputs, here their distance from 3:

    >>> import numpy as np
    >>> import cintervene as ci
    >>> descent = ci.ProjectedGradient(np.eye(2), radius=1.0)
    >>> displacements = np.zeros((2, 1))
    >>> for _ in range(8):
    ...     loss = float(np.square(displacements - 3.0).sum())
    ...     displacements = descent.step(2.0 * (displacements - 3.0), loss)
    >>> displacements.round(3)
    array([[0.707],
           [0.707]])
    >>> descent.update
    LowRankUpdate(1 x 2, rank 1, float64)
    """

    def __init__(
        self,
        inputs: Any,
        radius: float,
        preserve: Preserve | None = None,
        slack: float = 0.0,
        *,
        step: float | None = None,
        length: float = 0.5,
        momentum: bool = False,
    ) -> None:
        wide = matrix(inputs, "inputs")
        check_not_negative(radius=radius)
        check_positive(length=length)
        if step is not None:
            check_positive(step=step)
        self.radius = float(radius)
        self._dual_inputs = dual_inputs(wide, preserve)
        self._gram = gram_matrices(wide, self._dual_inputs, slack)[1]
        self._step, self._length = float(step or 0.0), float(length)
        self._momentum = momentum
        self.reset()

    def reset(self, coefficients: Any = None) -> None:
        """Start over from no change, or from the change with these coefficients.

        Parameters
        ----------
        coefficients : array_like, shape (m, d_out), optional
            What :attr:`coefficients` once was; scaled down if outside the ball.

        Raises
        ------
        ArgumentError
            The number of rows is not that of the inputs.
        """
        state = _State()
        if coefficients is not None:
            start = matrix(coefficients, "coefficients")
            self._check_rows(start, "coefficients")
            point = np.stack([start, _core.product_nn(self._gram, start)])
            norm = _norm(point)
            inside = min(1.0, self.radius / norm) if norm > 0.0 else 1.0
            state = state.at(point * inside)
        self._state = state

    def respond(self, grad_outputs: Any) -> Floats:
        """How the outputs move when the change goes along a gradient; no step is taken.

        Its product with the gradient is the squared slope of the loss: a change of norm
        r lowers a linear loss by at most r times the root.

        Parameters
        ----------
        grad_outputs : array_like, shape (..., d_out)
            As in :meth:`step`.

        Returns
        -------
        ndarray, shape (m, d_out), float64
            ``inputs P^-1 inputs' grad_outputs``.

        Raises
        ------
        ArgumentError
            The shape is not that of the outputs.
        NonFiniteError
            The gradient is NaN or infinite.
        """
        d_out = self._check_shape(grad_outputs, "grad_outputs")
        gradient = _widened(grad_outputs, d_out)
        return _core.product_nn(self._gram, gradient)

    def step(
        self,
        grad_outputs: Any,
        loss: float | None = None,
        *,
        length: float | None = None,
        response: Any = None,
    ) -> Floats:
        """Take a step from the present displacements.

        Parameters
        ----------
        grad_outputs : array_like, shape (..., d_out)
            Derivative of the loss with respect to the layer's outputs, at the present
            :attr:`displacements`: m rows, leading axes flattened; NumPy, torch or
            JAX, any float dtype.
        loss : float, optional
            The loss there. If it has risen above the least so far, the step is taken
            from the best point instead, half as long and without momentum; steps grow
            again with every success. One that is NaN counts as risen.
        length : float, optional
            Length of this step, instead of the one given at the start. Let lengths
            fall where gradients are those of some of the data only.
        response : array_like, shape (..., d_out), optional
            What :meth:`respond` returned for this gradient. Most of what a step costs
            is the product with G, which is then not computed again.

        Returns
        -------
        ndarray, shape (m, d_out), float64
            The new displacements.

        Raises
        ------
        ArgumentError
            A shape is not that of the outputs.
        NonFiniteError
            The gradient or its response is NaN or infinite, or the loss is before any
            other; nothing has changed then.
        """
        d_out = self._check_shape(grad_outputs, "grad_outputs")
        if response is not None:
            self._check_shape(response, "response", d_out)
            _core.check_finite(response, "response")
        state, best = self._state, self._state.best
        here = state.here
        if here is None:
            here = np.zeros((2, len(self._gram), d_out))
            state = state.at(here)
        rejected = best is not None and not _is_least(loss, best)
        if best is not None and rejected:
            state = replace(state.at(best.point), share=state.share * _SHORTER)
            grad_outputs, response = best.gradient, None
        elif loss is not None:
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"loss: got {loss}; expected a finite one, or None where it is "
                    "not known"
                )
            gradient = _widened(grad_outputs, d_out)
            share = min(1.0, state.share * _LONGER)
            state = replace(state, best=_Best(float(loss), here, gradient), share=share)
        if length is not None:
            check_positive(length=length)
        length = self._length if length is None else length
        self._state = self._advanced(state, grad_outputs, response, length, rejected)
        return self.displacements

    def _advanced(
        self, state: _State, gradient: Any, response: Any, length: float, rejected: bool
    ) -> _State:
        """The state after one more step."""
        here = np.array(state.here)
        trail = np.array(state.trail) if self._momentum else None
        result = _core.pgd_step(
            self._gram,
            gradient,
            response,
            here,
            trail,
            state.age,
            self.radius,
            self._step * state.share,
            length * state.share,
        )
        last = GradientStep(
            result["step"],
            result["gradient_norm"],
            result["gap"],
            result["restarted"],
            rejected,
        )
        return replace(
            state, here=here, trail=trail, age=result["age"], norm=result["norm"],
            last=last,
        )  # fmt: skip

    def restore_best(self) -> Floats:
        """Go back to the point of least loss among those given to :meth:`step`.

        Returns
        -------
        ndarray, shape (m, d_out), float64
            The displacements there.

        Raises
        ------
        ArgumentError
            No loss has been given.
        """
        state = self._state
        if state.best is None:
            raise ArgumentError("loss: none was given so far; pass it to step")
        self._state = state.at(state.best.point)
        return self.displacements

    @property
    def last(self) -> GradientStep | None:
        """What the last step was; None before the first."""
        return self._state.last

    @property
    def best_loss(self) -> float:
        """Least loss given to :meth:`step`; infinity before the first."""
        best = self._state.best
        return np.inf if best is None else best.loss

    @property
    def displacements(self) -> Floats:
        """Change of the outputs (m, d_out); a copy.

        Raises ArgumentError before the first step, which tells d_out.
        """
        return np.array(self._known()[1])

    @property
    def coefficients(self) -> Floats:
        """Coefficients A (m, d_out) of the change over the inputs; a copy."""
        return np.array(self._known()[0])

    @property
    def norm(self) -> float:
        """Norm of the change, at most the radius."""
        return self._state.norm

    @property
    def update(self) -> LowRankUpdate:
        """The change of the weight, of rank at most the number of inputs."""
        coefficients = self._known()[0]
        used = np.any(coefficients != 0.0, axis=1)
        left, right = coefficients[used].T, self._dual_inputs[used]
        d_out, d_in = len(left), right.shape[1]
        if len(right) <= min(d_out, d_in):
            return LowRankUpdate(left.copy(), right)
        change = _core.product_nn(left, right)
        if d_out <= d_in:
            return LowRankUpdate(np.eye(d_out), change)
        return LowRankUpdate(change, np.eye(d_in))

    def _known(self) -> Floats:
        if self._state.here is None:
            raise ArgumentError(
                "displacements: not known before the first step, which tells how many "
                "outputs there are; they are zero"
            )
        return self._state.here

    def _check_rows(self, x: Floats, name: str) -> None:
        if len(x) != len(self._gram):
            raise ArgumentError(
                f"{name}: has {len(x)} rows; expected {len(self._gram)}, one for each "
                "row of inputs"
            )

    def _check_shape(self, x: Any, name: str, width: int | None = None) -> int:
        """The number of outputs, which may be known already."""
        shape = shape_of(x, name)
        m = len(self._gram)
        if self._state.here is not None:
            width = self._state.here.shape[2]
        rows = int(np.prod(shape[:-1]))
        if len(shape) < 2 or rows != m or (width is not None and shape[-1] != width):
            raise ArgumentError(
                f"{name}: got shape {shape}; expected ({m}, {width or 'd_out'}), "
                "one row for each row of inputs"
            )
        return int(shape[-1])


def _widened(grad_outputs: Any, d_out: int) -> Floats:
    """A finite gradient as float64, one row a sample."""
    wide, _ = _core.widen(grad_outputs, "grad_outputs")
    return wide.reshape(-1, d_out)


def _is_least(loss: float | None, best: _Best) -> bool:
    """Whether no loss was lower so far; False for a loss of NaN."""
    return loss is None or loss <= best.loss


def _norm(point: Floats) -> float:
    return float(np.sqrt(max(np.sum(point[0] * point[1]), 0.0)))
