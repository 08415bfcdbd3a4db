# SPDX-License-Identifier: Apache-2.0
"""A forbidden vocabulary as point-constrained regions, layer after layer.

Each forbidden token, at each place where a probe is about to say it, gives a constraint
on the layer's output. The layers are done in order, each on the activations that the
changes before it produce, and share what has to be achieved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cintervene.models.capture import Captured, LayerStream, input_moments
from cintervene.models.concepts import (
    Balls,
    Concepts,
    HalfSpaces,
    Pairs,
    Region,
    as_floats,
)
from cintervene.models.fisher import OutputMetric, TokenStatistics, token_statistics
from cintervene.models.scoring import token_nll
from cintervene.models.targets import Matrix, Target, find_decoder, find_targets
from cintervene.models.unembedding import Unembedding, find_unembedding
from cintervene.models.utterances import Utterance
from cintervene.models.weights import rounded_change
from cintervene.preserve import Preserve
from cintervene.solution import Status
from cintervene.update import LowRankUpdate

__all__ = ["LayerChange", "Vocabulary", "VocabularyOptions"]

Floats = npt.NDArray[np.float64]

# Hidden states of benign text from which next-token distributions are taken.
STATISTICS_ROWS = 2048
# How much benign words count in `Preserve`, relative to all other benign text: they are
# what is nearest to the forbidden words.
CONTRAST_WEIGHT = 8.0
# How far benign words shall rise, relative to the fall of forbidden ones. It makes up
# for what words that nothing was built from lose for being like the forbidden ones.
KEEP = 0.6


@dataclass(frozen=True)
class VocabularyOptions:
    """How the change of a layer is weighed.

    Attributes
    ----------
    concepts : {"contrast", "unembedding", "activation"}
        What stands for a token: a half-space away from the direction that raises its
        logit, minus the mean direction of benign text or not, or a ball around the mean
        output of the probes about to say it.
    slack : float
        Price list for exceptions; see `cintervene.pcr`.
    ridge : float
        Of `Preserve`, relative to the mean squared input.
    output_ridge : float or None
        Of the output metric, relative to its mean; None measures outputs by the plain
        norm.
    solver : str
        The `method` of `cintervene.pcr`.
    max_rank : int
        Largest rank of a layer's change.
    """

    concepts: Concepts = "contrast"
    slack: float = 1.0
    ridge: float = 1e-3
    output_ridge: float | None = 1e-2
    solver: str = "exact"
    max_rank: int = 256


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


class Vocabulary:
    """All that can be computed before the strength is known.

    Parameters
    ----------
    model : nn.Module
    probes : sequence of Utterance
        Answers in which the forbidden words are said.
    benign : sequence of Utterance
        What must stay as it is; all tokens from `start` on count.
    contrast : sequence of Utterance
        Answers that say benign words to the same prompts. They must stay as they are
        too, and the words must not become less likely.
    layers : sequence of int
    options : VocabularyOptions
    entered : callable, optional
        Called with numbers of utterances that have come to the first of the layers.
    matrix : {"down_proj", "o_proj"}
        Which projection of the layers.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Sequence[Utterance],
        benign: Sequence[Utterance],
        contrast: Sequence[Utterance],
        layers: Sequence[int],
        options: VocabularyOptions,
        entered: Callable[[int], None] | None = None,
        matrix: Matrix = "down_proj",
    ) -> None:
        self.options = options
        self._metrics: dict[int | None, OutputMetric] = {}
        decoder = find_decoder(model)
        self.unembedding: Unembedding = find_unembedding(model, decoder)
        self.targets = find_targets(model, layers, decoder, matrix)
        self.pairs = Pairs.of(probes, contrast if self._additive else ())
        first = self.targets[0].layer
        spoken = [*probes, *contrast]
        self._spoken = LayerStream(
            model, [one.ids for one in spoken], first,
            wanted=self.pairs.wanted(len(spoken)),
            streamed=[()] * len(probes) + [one.positions for one in contrast],
            decoder=decoder, entered=entered, matrix=matrix,
        )  # fmt: skip
        others = LayerStream(
            model, [one.ids for one in benign], first,
            wanted=_sample(benign, STATISTICS_ROWS),
            streamed=[one.positions for one in benign],
            decoder=decoder, entered=entered, matrix=matrix,
        )  # fmt: skip
        base = self._spoken.fork()
        self.preserves = self._watch(others, base)
        self._state = base.final()
        self.statistics = self._statistics(others.final())
        self.nll = self._pair_nll()

    def _watch(self, benign: LayerStream, spoken: LayerStream) -> dict[int, Preserve]:
        """Gather the second moments of what must stay, both kinds in balance."""
        found = {}
        for target in self.targets:
            total, contrast = (input_moments(s, target) for s in (benign, spoken))
            if contrast.count > 0:
                share = CONTRAST_WEIGHT * total.count / contrast.count
                total.merge(contrast, weight=share)
            found[target.layer] = total.preserve(ridge=self.options.ridge)
        return found

    def _statistics(self, benign_state: Tensor) -> TokenStatistics:
        """Take next tokens from benign text and from where benign words begin."""
        kept = np.flatnonzero(np.bincount(self.pairs.rows, ~self.pairs.falling))
        states = [benign_state, self._state[torch.from_numpy(kept)]]
        return token_statistics(self.unembedding, torch.cat(states))

    def solve(self, strength: float) -> list[LayerChange]:
        """Find the change of each layer.

        Parameters
        ----------
        strength : float
            For half-spaces the nats s: each token shall fall to a probability of
            exp(-s) at most, and by s / 2 nats at least. For balls the radius, in
            typical distances of a token's rows from their mean.
        """
        stream = self._spoken.fork()
        left = self._goal(strength)
        found = []
        for index, target in enumerate(self.targets):
            rows = stream.run(target.layer)
            asked = left / (len(self.targets) - index) if self._additive else left
            change = self._solve_layer(target, rows, asked)
            if self._additive:
                left = left - change.reached
            found.append(change)
            stream.advance(target.layer, change.update)
        return found

    def _solve_layer(
        self, target: Target, rows: Captured, asked: Floats
    ) -> LayerChange:
        options, preserve = self.options, self.preserves[target.layer]
        metric = self._metric(target)
        region = self._region(target, rows, metric)
        solution = region.solve(preserve, asked, options.slack, options.solver)
        update = metric.restore(leading(solution.update, preserve, options.max_rank))
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

    @property
    def _additive(self) -> bool:
        """Whether what one layer achieves need not be achieved by the next."""
        return self.options.concepts != "activation"

    def _goal(self, strength: float) -> Floats:
        if not self._additive:
            return np.full(len(self.pairs.rows), strength)
        fall = np.maximum(strength - self.nll, strength / 2)
        return self.pairs.weights * np.where(self.pairs.falling, fall, KEEP * strength)

    def _metric(self, target: Target) -> OutputMetric:
        """The metric of a target's outputs; one for all that write straight on."""
        key = None if target.after is None else target.layer
        if key not in self._metrics:
            self._metrics[key] = self._new_metric(target)
        return self._metrics[key]

    def _new_metric(self, target: Target) -> OutputMetric:
        if self.options.output_ridge is None:
            return OutputMetric.plain(target.d_out)
        fisher = self.statistics.fisher_at(target)
        return OutputMetric(fisher, self.options.output_ridge)

    def _region(self, target: Target, rows: Captured, metric: OutputMetric) -> Region:
        if self.options.concepts == "activation":
            return Balls(self.pairs, rows, metric)
        return HalfSpaces(
            self.pairs, rows, target, self._state, self.unembedding, self.statistics,
            self.options.concepts == "contrast", metric,
        )  # fmt: skip

    def _pair_nll(self) -> Floats:
        tokens = torch.from_numpy(self.pairs.tokens[self.pairs.columns])
        return token_nll(self.unembedding, self._state[self.pairs.rows], tokens)


def leading(update: LowRankUpdate, preserve: Preserve, rank: int) -> LowRankUpdate:
    """The closest change of at most the given rank, in the norm of `preserve`."""
    size = min(rank, update.rank, *update.shape)
    weighed = update.left @ preserve.gram(update.right) @ update.left.T
    vectors = np.linalg.eigh(weighed)[1][:, ::-1][:, :size]
    return LowRankUpdate(vectors, (vectors.T @ update.left) @ update.right)


def _sample(benign: Sequence[Utterance], rows: int) -> list[list[int]]:
    """Positions spread evenly over all that count, about `rows` of them."""
    total = sum(len(one.positions) for one in benign)
    step = max(1, total // rows)
    places: list[list[int]] = []
    seen = 0
    for one in benign:
        places.append([p for i, p in enumerate(one.positions, seen) if i % step == 0])
        seen += len(one.positions)
    return places
