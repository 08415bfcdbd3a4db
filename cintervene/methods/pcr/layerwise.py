# SPDX-License-Identifier: Apache-2.0
"""Changes of several layers, each solved on what the ones before it leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from cintervene.activations.layer_stream import (
    Captured,
    LayerStream,
)
from cintervene.methods.common.output_metric import (
    OutputMetric,
    TokenStatistics,
    token_statistics,
)
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.constraints import ConstraintIndex
from cintervene.methods.pcr.regions import (
    Points,
    Region,
)
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.models.weights import as_floats, rounded_change
from cintervene.prompts.target_spans import TargetSpan
from cintervene.solvers.preserve import (
    BenignMoments,
    Preserve,
)
from cintervene.solvers.solution import Status
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = [
    "LayerChange",
    "Layerwise",
    "Watched",
    "leading",
]

# Hidden states of benign text from which next-token distributions are taken.
STATISTICS_ROWS = 2048
# How much contrasts count in `Preserve`, relative to all other benign text: they are
# what is nearest to what is forbidden.
CONTRAST_WEIGHT = 8.0
# Of a change's squared norm, a part that rounding alone makes.
NEGLIGIBLE = 1e-14


@dataclass(frozen=True, eq=False)
class LayerChange:
    """What was found for one layer.

    Attributes
    ----------
    target : Target
    update : LowRankUpdate
    status : Status
    iterations : int
    cost : float
        Of the solve, in the norm that it minimises, before the rank was cut.
    asked, reached, reached_rounded : ndarray, shape (pairs,)
        What the layer's constraints ask for, what the change reaches by itself, and
        what is left of that in the weights' own type: nats for half-spaces, typical
        distances for balls.
    """

    target: Target
    update: LowRankUpdate
    status: Status
    iterations: int
    cost: float
    asked: Floats
    reached: Floats
    reached_rounded: Floats

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
            "asked": float(np.mean(self.asked)),
            "reached": float(np.mean(self.reached)),
            "reached_rounded": float(np.mean(self.reached_rounded)),
            "shortfall": float(np.max(self.asked - self.reached_rounded)),
        }


class Watched:
    """What passes a projection: rows, moments of its inputs, mean of its outputs.

    Attributes
    ----------
    rows : Captured
        The stream's wanted rows.
    moments : BenignMoments
        Of the inputs of its streamed rows.
    mean : ndarray, shape (d_out,)
        Of their outputs, zero where there are none.
    """

    def __init__(self, stream: LayerStream, target: Target) -> None:
        self.moments = BenignMoments(target.d_in)
        self._total = np.zeros(target.d_out)
        self.rows = stream.run(target.layer, self._add)
        self.mean = self._total / max(self.moments.count, 1)

    def _add(self, inputs: Tensor, outputs: Tensor) -> None:
        self.moments.add(inputs)
        self._total += as_floats(outputs).sum(axis=0)


class Layerwise(ABC):
    """All that can be computed before the strength is known.

    Parameters
    ----------
    parts : ModelParts
    probes : sequence of TargetSpan
        Where what is forbidden is said.
    benign : sequence of TargetSpan
        What must stay as it is; all tokens from `start` on count.
    contrast : sequence of TargetSpan
        What is like the probes but not forbidden. It must stay as it is too, and counts
        for more.
    pairs : ConstraintIndex
        Rows of the probes, and of `contrast` numbered on from them, that are
        constrained.
    config : PCRConfig
        With layers, concepts and slack resolved.
    entered : callable, optional
        Called with numbers of spans that have come to the first of the layers.
    """

    def __init__(
        self,
        parts: ModelParts,
        probes: Sequence[TargetSpan],
        benign: Sequence[TargetSpan],
        contrast: Sequence[TargetSpan],
        pairs: ConstraintIndex,
        config: PCRConfig,
        entered: Callable[[int], None] | None = None,
    ) -> None:
        self.config, self.pairs = config, pairs
        self._points: dict[int, Points | None] = {}
        self._metrics: dict[int | None, OutputMetric] = {}
        self.unembedding = parts.unembedding
        self.targets = parts.targets(config.chosen_layers, config.matrix)
        first = self.targets[0].layer
        spoken = [*probes, *contrast]
        self._spoken = LayerStream.of(
            parts.decoder, spoken, first,
            wanted=pairs.wanted(len(spoken)),
            streamed=[()] * len(probes) + [one.positions for one in contrast],
            entered=entered, matrix=config.matrix,
        )  # fmt: skip
        others = LayerStream.of(
            parts.decoder, benign, first,
            wanted=_sample(benign, STATISTICS_ROWS),
            streamed=[one.positions for one in benign],
            entered=entered, matrix=config.matrix,
        )  # fmt: skip
        base = self._spoken.fork()
        self.preserves = self._watch(others, base)
        self.statistics = self._statistics(others, base)

    def _watch(self, benign: LayerStream, spoken: LayerStream) -> dict[int, Preserve]:
        """Gather the second moments of what must stay, both kinds in balance."""
        found = {}
        for target in self.targets:
            plain, near = Watched(benign, target), Watched(spoken, target)
            self._points[target.layer] = self._seen(plain, near)
            total = plain.moments
            if near.moments.count > 0:
                share = CONTRAST_WEIGHT * total.count / near.moments.count
                total.merge(near.moments, weight=share)
            found[target.layer] = total.preserve(ridge=self.config.ridge)
        return found

    def _seen(self, _benign: Watched, _spoken: Watched) -> Points | None:
        """What regions need of the base model's outputs of a layer; nothing here."""
        return None

    def _statistics(self, benign: LayerStream, _spoken: LayerStream) -> TokenStatistics:
        """Take next tokens from benign text."""
        return token_statistics(self.unembedding, benign.final())

    def solve(self, strength: float) -> list[LayerChange]:
        """Find the change of each layer."""
        stream = self._spoken.fork()
        found: list[LayerChange] = []
        for target in self.targets:
            rows = stream.run(target.layer)
            change = self._solve_layer(target, rows, self._asked(strength, found))
            found.append(change)
            stream.advance(target.layer, change.update)
        return found

    def _solve_layer(
        self, target: Target, rows: Captured, asked: Floats
    ) -> LayerChange:
        config, preserve = self.config, self.preserves[target.layer]
        metric = self._metric(target)
        region = self._region(target, rows, metric)
        solution = region.solve(preserve, asked, config.price, config.solver)
        update = metric.restore(leading(solution.update, preserve, config.max_rank))
        inputs = as_floats(rows.inputs)
        exact = (inputs @ update.right.T) @ update.left.T
        rounded = inputs @ as_floats(rounded_change(target, update)).T
        return LayerChange(
            target=target,
            update=update,
            status=solution.status,
            iterations=solution.iterations,
            cost=solution.cost,
            asked=asked,
            reached=region.value(metric.points(exact)),
            reached_rounded=region.value(metric.points(rounded)),
        )

    @abstractmethod
    def _asked(self, strength: float, found: Sequence[LayerChange]) -> Floats:
        """What the layer after those found is asked for, one number a pair."""

    @abstractmethod
    def _region(self, target: Target, rows: Captured, metric: OutputMetric) -> Region:
        """The constraints on a layer whose rows are as the layers before leave them."""

    def _metric(self, target: Target) -> OutputMetric:
        """The metric of a target's outputs; one for all that write straight on."""
        key = None if target.after is None else target.layer
        if key not in self._metrics:
            self._metrics[key] = self._new_metric(target)
        return self._metrics[key]

    def _new_metric(self, target: Target) -> OutputMetric:
        if self.config.output_ridge is None:
            return OutputMetric.plain(target.d_out)
        fisher = self.statistics.fisher_at(target)
        return OutputMetric(fisher, self.config.output_ridge)


def leading(update: LowRankUpdate, preserve: Preserve, rank: int) -> LowRankUpdate:
    """The closest change of at most the given rank, in the norm of `preserve`."""
    weighed = update.left @ preserve.gram(update.right) @ update.left.T
    values, vectors = np.linalg.eigh(weighed)
    # The rest is rounding: a few directions may be all there is.
    real = max(1, np.count_nonzero(values > NEGLIGIBLE * values[-1]))
    size = min(rank, real, update.rank, *update.shape)
    vectors = vectors[:, ::-1][:, :size]
    return LowRankUpdate(vectors, (vectors.T @ update.left) @ update.right)


def _sample(benign: Sequence[TargetSpan], rows: int) -> list[list[int]]:
    """Positions spread evenly over all that count, about `rows` of them."""
    total = sum(len(one.positions) for one in benign)
    step = max(1, total // rows)
    places: list[list[int]] = []
    seen = 0
    for one in benign:
        places.append([p for i, p in enumerate(one.positions, seen) if i % step == 0])
        seen += len(one.positions)
    return places
