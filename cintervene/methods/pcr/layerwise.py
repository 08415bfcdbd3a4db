# SPDX-License-Identifier: Apache-2.0
"""Changes of several layers, each solved on what the ones before it leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from cintervene.activations.layer_stream import Captured
from cintervene.methods.common.output_metric import OutputMetric, TokenStatistics
from cintervene.methods.pcr.base_activations import BaseActivations
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.regions import Region
from cintervene.models.targets import Target
from cintervene.models.weights import as_floats, rounded_outputs
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.problem import MeasuredInputs
from cintervene.solvers.solution import Solution, Status
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.ranks import of_one

__all__ = ["LayerChange", "Layerwise", "Problem", "output_cost", "truncate_rank"]

# Of a change's squared norm, a part that rounding alone makes.
NEGLIGIBLE = 1e-14
# Ranks, relative to the outputs, at which a basis costs less than it saves.
FEW = 0.75


@dataclass(frozen=True, eq=False)
class LayerChange:
    """The change of one layer.

    Attributes
    ----------
    target : Target
    update : LowRankUpdate
    status : Status
    iterations : int
    cost : float
        Of the solve, in the norm that it minimises, before the rank was cut.
    requested, achieved, achieved_rounded : ndarray, shape (constraints,)
        What the layer's constraints ask for, what the change achieves by itself, and
        what is left of that in the weights' own type: nats for half-spaces of tokens,
        typical distances for balls, distances to the benign mean for differences.
    """

    target: Target
    update: LowRankUpdate
    status: Status
    iterations: int
    cost: float
    requested: Floats
    achieved: Floats
    achieved_rounded: Floats

    def summary(self) -> dict[str, Any]:
        """The facts for a report."""
        weight = self.target.weight.detach()
        return {
            "name": self.target.name,
            "layer": self.target.layer,
            "rank": self.update.rank,
            "relative_norm": self.update.norm / float(weight.float().norm()),
            "status": self.status.name,
            "iterations": self.iterations,
            "cost": self.cost,
            "asked": float(np.mean(self.requested)),
            "reached": float(np.mean(self.achieved)),
            "reached_rounded": float(np.mean(self.achieved_rounded)),
            "shortfall": float(np.max(self.requested - self.achieved_rounded)),
        }


class Problem(Protocol):
    """What is constrained in the layers, how much is requested, and in which region."""

    @property
    def statistics(self) -> TokenStatistics:
        """Benign next-token distributions, for the metric of outputs (14)."""

    def amount(
        self, strength: float, changes: Sequence[LayerChange], n_layers: int
    ) -> Floats:
        """What the layer after `changes`, one of `n_layers`, is to achieve.

        Returns
        -------
        ndarray, shape (constraints,)
        """

    def region(self, target: Target, rows: Captured, metric: OutputMetric) -> Region:
        """The constraints on a layer whose rows are as the layers before leave them."""


class Layerwise:
    """Solves a problem for any strength, one layer after the other.

    Each layer's problem is docs/methods/pcr.md (1) in the norm (14), on the activations
    that the changes before it produce.

    Parameters
    ----------
    problem : Problem
    base : BaseActivations
    config : PCRConfig
        With slack resolved.
    """

    def __init__(
        self, problem: Problem, base: BaseActivations, config: PCRConfig
    ) -> None:
        self.targets = base.targets
        self._problem, self._config = problem, config
        self._start, self._preserves = base.start, base.preserves
        self._metrics: dict[int | None, OutputMetric] = {}
        self._first: MeasuredInputs | None = None

    def solve(self, strength: float) -> list[LayerChange]:
        """Return the least change of each layer."""
        stream = self._start.fork()
        changes: list[LayerChange] = []
        for number, target in enumerate(self.targets):
            for change in changes[-1:]:
                stream.advance(change.target.layer, change.update)
            rows = stream.run(target.layer).on_host()
            amount = self._problem.amount(strength, changes, len(self.targets))
            solve = partial(self._solve_layer, target, rows, amount)
            found = of_one(f"the change of {target.name}", solve, number)
            changes.append(LayerChange(target=target, **found))
        return changes

    def _solve_layer(
        self, target: Target, rows: Captured, amount: Floats
    ) -> dict[str, Any]:
        """Everything of a layer's change but its target."""
        config, preserve = self._config, self._preserves[target.layer]
        metric = self._metric(target)
        region = self._problem.region(target, rows, metric)
        measured = self._measured(target, rows)
        solution = region.solve(measured, amount, config.chosen_slack, config.solver)
        cost = output_cost(solution, preserve)
        truncated = truncate_rank(solution.update, cost, config.max_rank)
        update = metric.restore(truncated)
        inputs = as_floats(rows.inputs)
        exact = (inputs @ update.right.T) @ update.left.T
        rounded = rounded_outputs(target, update, inputs)
        return {
            "update": update,
            "status": solution.status,
            "iterations": solution.iterations,
            "cost": solution.cost,
            "requested": amount,
            "achieved": region.value(metric.points(exact)),
            "achieved_rounded": region.value(metric.points(rounded)),
        }

    def _measured(self, target: Target, rows: Captured) -> MeasuredInputs:
        """A layer's inputs in its norm; those of the first are the same every time."""
        if target is not self.targets[0]:
            return MeasuredInputs.of(rows.inputs, self._preserves[target.layer])
        if self._first is None:
            preserve = self._preserves[target.layer]
            self._first = MeasuredInputs.of(rows.inputs, preserve)
        return self._first

    def _metric(self, target: Target) -> OutputMetric:
        """The metric of a target's outputs; one for all that no norm follows."""
        key = None if target.after is None else target.layer
        if key not in self._metrics:
            statistics, ridge = self._problem.statistics, self._config.output_ridge
            self._metrics[key] = statistics.metric_at(target, ridge)
        return self._metrics[key]


def output_cost(solution: Solution, preserve: Preserve) -> Floats:
    """``delta P delta'`` (d_out, d_out) of a change: its squared norm is the trace.

    In representer form it is ``A' H P^-1 H' A``, and what follows A' are the
    displacements, which are known.
    """
    if solution.coefficients is not None:
        return solution.coefficients.T @ solution.displacements
    update = solution.update
    cost: Floats = update.left @ preserve.gram(update.right) @ update.left.T
    return cost


def truncate_rank(update: LowRankUpdate, cost: Floats, rank: int) -> LowRankUpdate:
    """The closest change of at most the given rank, in the norm that it was solved in.

    It projects the outputs onto the leading eigenvectors of `cost`, which is
    ``delta P delta'``.
    """
    basis = None
    if update.rank <= FEW * len(cost):
        # All eigenvectors that count are within the span of what the change adds.
        basis = np.linalg.qr(update.left)[0]
        cost = basis.T @ cost @ basis
    values, vectors = np.linalg.eigh(cost)
    # The rest is rounding: a few directions may be all there is.
    significant = max(1, np.count_nonzero(values > NEGLIGIBLE * values[-1]))
    size = min(rank, significant, update.rank, *update.shape)
    vectors = vectors[:, ::-1][:, :size]
    if basis is not None:
        vectors = basis @ vectors
    return LowRankUpdate(vectors, (vectors.T @ update.left) @ update.right)
