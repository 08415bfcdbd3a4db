# SPDX-License-Identifier: Apache-2.0
"""A forbidden vocabulary as point-constrained regions, layer after layer.

Each forbidden token, at each place where a probe is about to say it, gives a constraint
on the layer's output. The layers are done in order, each on the activations that the
changes before it produce, and share what has to be achieved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cintervene.models.capture import Captured, LayerStream
from cintervene.models.concepts import Balls, Concepts, HalfSpaces, Pairs, Region
from cintervene.models.fisher import OutputMetric, token_statistics
from cintervene.models.scoring import token_nll
from cintervene.models.targets import Decoder, Target, find_decoder, find_targets
from cintervene.models.unembedding import Unembedding, find_unembedding
from cintervene.models.utterances import Utterance
from cintervene.preserve import BenignMoments, Preserve
from cintervene.solution import Solution
from cintervene.update import LowRankUpdate

__all__ = ["LayerChange", "Vocabulary", "VocabularyOptions"]

Floats = npt.NDArray[np.float64]

# Hidden states from which benign next-token distributions are taken.
STATISTICS_ROWS = 2048


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
    method : str
        Solver; see `cintervene.pcr`.
    max_rank : int
        Largest rank of a layer's change.
    """

    concepts: Concepts = "contrast"
    slack: float = 1.0
    ridge: float = 1e-3
    output_ridge: float | None = 1e-2
    method: str = "most_violated"
    max_rank: int = 128


@dataclass(frozen=True, eq=False)
class LayerChange:
    """What was found for one layer."""

    target: Target
    update: LowRankUpdate
    solution: Solution
    rows: Captured


class Vocabulary:
    """All that can be computed before the strength is known.

    Parameters
    ----------
    model : nn.Module
    probes : sequence of Utterance
        Answers in which the forbidden words are said.
    benign : sequence of Utterance
        What must stay as it is: all tokens from `start` - 1 on are looked at.
    layers : sequence of int
    options : VocabularyOptions
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Sequence[Utterance],
        benign: Sequence[Utterance],
        layers: Sequence[int],
        options: VocabularyOptions,
    ) -> None:
        self.options = options
        self.decoder: Decoder = find_decoder(model)
        self.unembedding: Unembedding = find_unembedding(model, self.decoder)
        self.targets = find_targets(model, layers, self.decoder)
        self.pairs = Pairs.of(probes)
        first = self.targets[0].layer
        self._probes = LayerStream(
            model, [probe.ids for probe in probes], first,
            wanted=self.pairs.wanted(len(probes)), decoder=self.decoder,
        )  # fmt: skip
        self._state = _final_state(self._probes.fork())
        self.nll = self._pair_nll(self._state)
        self._watch_benign(model, benign, first)

    def _watch_benign(
        self, model: nn.Module, benign: Sequence[Utterance], first: int
    ) -> None:
        stream = LayerStream(
            model, [one.ids for one in benign], first,
            wanted=_sample(benign, STATISTICS_ROWS),
            streamed=[one.positions for one in benign], decoder=self.decoder,
        )  # fmt: skip
        self.preserves: dict[int, Preserve] = {}
        for target in self.targets:
            moments = BenignMoments(target.d_in)
            stream.run(target.layer, lambda inputs, _, to=moments: to.add(inputs))
            self.preserves[target.layer] = moments.preserve(ridge=self.options.ridge)
        self.statistics = token_statistics(self.unembedding, _final_state(stream))

    def solve(self, strength: float) -> list[LayerChange]:
        """Find the change of each layer.

        Parameters
        ----------
        strength : float
            For half-spaces the nats s: each token shall fall to a probability of
            exp(-s) at most, and by s / 2 nats at least. For balls the radius, in
            typical distances of a token's rows from their mean.
        """
        stream = self._probes.fork()
        left = self._goal(strength)
        found = []
        for index, target in enumerate(self.targets):
            rows = stream.run(target.layer)
            metric = self._metric(target)
            region = self._region(target, rows, metric)
            amount = left / (len(self.targets) - index) if self._additive else left
            solution = region.solve(
                self.preserves[target.layer], amount, self.options.slack,
                self.options.method,
            )  # fmt: skip
            left = left - region.achieved(solution)
            update = metric.restore(solution.update.compress(self.options.max_rank))
            found.append(LayerChange(target, update, solution, rows))
            stream.advance(target.layer, update)
        return found

    @property
    def _additive(self) -> bool:
        """Whether what one layer achieves need not be achieved by the next."""
        return self.options.concepts != "activation"

    def _goal(self, strength: float) -> Floats:
        if not self._additive:
            return np.full(len(self.pairs.rows), strength)
        return np.maximum(strength - self.nll, strength / 2)

    def _metric(self, target: Target) -> OutputMetric:
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

    def _pair_nll(self, state: Tensor) -> Floats:
        tokens = torch.from_numpy(self.pairs.tokens[self.pairs.columns])
        return token_nll(self.unembedding, state[self.pairs.rows], tokens)


def _final_state(stream: LayerStream) -> Tensor:
    """What the final norm reads at the wanted rows; the stream is used up."""
    stream.advance(stream.n_layers - 1)
    return stream.hidden()


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
