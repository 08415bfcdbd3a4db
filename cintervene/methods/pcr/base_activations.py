# SPDX-License-Identifier: Apache-2.0
"""What the base model does with the calibration texts, gathered in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from cintervene.activations.layer_stream import Asked, Captured, LayerStream
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.constraints import ConstraintIndex
from cintervene.methods.pcr.regions import Points
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.models.weights import as_floats
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.target_spans import TargetSpan
from cintervene.solvers.preserve import BenignMoments, Preserve
from cintervene.utils.kept import kept
from cintervene.utils.progress import Step
from cintervene.utils.ranks import is_own, world

__all__ = ["BaseActivations"]

# Hidden states of benign text from which next-token distributions are taken.
STATISTICS_ROWS = 2048
# How much near negatives count in `Preserve`, relative to all other benign text.
NEAR_WEIGHT = 8.0


@dataclass(frozen=True, eq=False)
class BaseActivations:
    """Streams of the calibration texts, and what was observed in each layer.

    Attributes
    ----------
    targets : list of Target
        The projections to be changed, lowest first.
    start : LayerStream
        The constrained rows where they enter the first of the layers.
    constrained, retain : LayerStream
        The constrained rows, and a sample of the rows of benign text, in the last of
        the layers.
    preserves : dict of int to Preserve
        The norm of each layer's change, docs/methods/pcr.md (3). Where ranks share
        work, each has those of its own layers, and so with `points`.
    points : dict of int to Points
        Outputs of each layer; empty where constraints are on tokens.
    """

    targets: list[Target]
    start: LayerStream
    constrained: LayerStream
    retain: LayerStream
    preserves: dict[int, Preserve]
    points: dict[int, Points]

    @classmethod
    def gather(
        cls,
        parts: ModelParts,
        calibration: Calibration,
        constraints: ConstraintIndex,
        config: PCRConfig,
        entered: Step | None = None,
    ) -> BaseActivations:
        """Run the base model.

        Parameters
        ----------
        parts : ModelParts
        calibration : Calibration
            Its `tune_*` parts are not used.
        constraints : ConstraintIndex
            Rows of `forget`, and of `near_negatives` numbered on from them.
        config : PCRConfig
            With layers and concepts resolved.
        entered : callable, optional
            Called with numbers of spans that have come to the first of the layers.
        """
        targets = parts.targets(config.chosen_layers, config.matrix)
        # What a change has in common with others. Texts that enter at another layer are
        # rounded otherwise: a change shall not depend on what was made before it.
        first, size = targets[0].layer, config.calibration
        common = (calibration, size, config.concepts, config.matrix, first)
        forget, near = calibration.forget, calibration.near_negatives

        def enter() -> list[LayerStream]:
            constrained = Asked(
                [*forget, *near],
                wanted=constraints.wanted(len(forget) + len(near)),
                streamed=[()] * len(forget) + [span.positions for span in near],
            )
            benign = Asked(
                calibration.retain,
                wanted=_sample(calibration.retain, STATISTICS_ROWS),
                streamed=[span.positions for span in calibration.retain],
                keep_bytes=0,
            )
            return LayerStream.several(
                parts.decoder, [constrained, benign], first,
                entered=entered, matrix=config.matrix,
            )  # fmt: skip

        start, retain = (one.fork() for one in kept("texts", common, enter))
        base = cls(targets, start, start.fork(keep_bytes=0), retain, {}, {})
        for number, target in enumerate(targets):
            # Each rank has to come to the same, the owner's number too.
            found = kept(
                f"norm of {target.name}", (*common, config.ridge, number % world()),
                partial(base._observed, target, config, is_own(number)),
            )  # fmt: skip
            if found is not None:
                preserve, points = found
                base.preserves[target.layer] = preserve
                if points is not None:
                    base.points[target.layer] = points
        return base

    def _observed(
        self, target: Target, config: PCRConfig, own: bool
    ) -> tuple[Preserve, Points | None] | None:
        """Run one layer; its norm and, where they count, its points if it is own."""
        benign = _Observed(self.retain, target, own)
        near = _Observed(self.constrained, target, own)
        if not own:
            return None
        points = None
        if not config.on_tokens:
            mean = near.mean if near.moments.count else benign.mean
            points = Points(as_floats(near.rows.outputs), mean)
        moments = benign.moments
        if near.moments.count > 0:
            weight = NEAR_WEIGHT * moments.count / near.moments.count
            moments.merge(near.moments, weight=weight)
        return moments.factored(ridge=config.ridge), points


class _Observed:
    """A layer's wanted rows, and statistics of its streamed rows.

    Attributes
    ----------
    rows : Captured
        The wanted rows.
    moments : BenignMoments
        Of the inputs of the streamed rows.
    mean : ndarray, shape (d_out,)
        Of their outputs, zero where there are none.
    """

    def __init__(self, stream: LayerStream, target: Target, own: bool) -> None:
        self.moments = BenignMoments(target.d_in, in_place=True)
        self._total = np.zeros(target.d_out)
        sink = self._add if own else _ignore
        self.rows: Captured = stream.run(target.layer, sink)
        self.mean = self._total / max(self.moments.count, 1)

    def _add(self, inputs: Tensor, outputs: Tensor) -> None:
        self.moments.add(inputs.cpu())
        self._total += as_floats(outputs).sum(axis=0)


def _ignore(_inputs: Tensor, _outputs: Tensor) -> None:
    """Leave rows to the rank whose layer it is."""


def _sample(spans: Sequence[TargetSpan], rows: int) -> list[list[int]]:
    """Positions evenly spaced over all that count, about `rows` of them."""
    total = sum(len(span.positions) for span in spans)
    step = max(1, total // rows)
    sample: list[list[int]] = []
    passed = 0
    for span in spans:
        numbered = enumerate(span.positions, passed)
        sample.append([position for i, position in numbered if i % step == 0])
        passed += len(span.positions)
    return sample
