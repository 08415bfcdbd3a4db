# SPDX-License-Identifier: Apache-2.0
"""Towards the safe region (TSR): a small change that makes a model refuse.

The loss is the negative log probability of refusals after harmful requests, plus a
divergence from the model's own answers to others: docs/methods/tsr.md (3). It is
lowered by projected gradient steps within a ball of changes at each of some layers, on
some of the examples at a time.

Where ranks share work, a batch of examples and a layer's ball are each the work of one
of them. Losses and derivatives are summed in the order of the batches, so that they are
the same bits on any number of ranks.

Source: arXiv 2510.03567, TSR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from cintervene.activations.upper_layers import (
    Changes,
    UpperBatch,
    UpperLayers,
    differentiable,
    logits_of,
)
from cintervene.methods.common.descent import minibatches
from cintervene.methods.common.gradient_metric import GradientMetric
from cintervene.methods.common.objectives import (
    by_example,
    divergence_loss,
    refusal_loss,
    refusal_reached,
    set_loss,
    target_sets,
)
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.methods.config import DescentConfig
from cintervene.methods.tsr.examples import RefusalExamples
from cintervene.methods.tsr.layer_ball import LayerBall
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import TargetExample
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.ranks import deal, deal_in_rounds, is_own

__all__ = ["ExampleBatch", "SafeRegion"]

T = TypeVar("T")

# Of the parts, one in so many tells how outputs matter: a mean over thousands of
# tokens changes little with more of them, and each costs a pass with gradients.
FISHER_EVERY = 4


class ExampleBatch:
    """Some harmful and benign examples at the layers that are changed.

    Parameters
    ----------
    parts : ModelParts
    targets : sequence of Target
        The projections to change, lowest first.
    harmful, benign : sequence of TargetExample
        At least one of each.
    count : callable, optional
        Called with the number of a target and its inputs (n, d_in) at all tokens of
        benign examples behind the prefixes.

    Attributes
    ----------
    harmful_examples : list of TargetExample
    harmful, benign : UpperLayers
    targets : sequence of Target
    devices : list of torch.device
        Where each target's change has to be.
    """

    def __init__(
        self,
        parts: ModelParts,
        targets: Sequence[Target],
        harmful: Sequence[TargetExample],
        benign: Sequence[TargetExample],
        count: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        self._parts, self.targets = parts, targets
        self.devices = [target.device for target in targets]
        self.set_harmful(harmful)
        self.benign = self._gather(benign, turn=len(self.harmful.batches))
        # By the number of a benign batch of this rank.
        self._base: dict[int, Tensor] = {}
        watched = partial(self._unchanged, watched=count is not None)
        with torch.no_grad():
            for _, found in self.benign.deal("benign examples", watched):
                for index, inputs in found:
                    assert count is not None
                    count(index, inputs)

    def _unchanged(
        self, number: int, batch: UpperBatch, watched: bool
    ) -> list[tuple[int, Tensor]]:
        """Keep the base model's last hidden states at a benign batch's wanted rows.

        Returns what the targets read at all tokens, where they are watched.
        """
        found: list[tuple[int, Tensor]] = []

        def watch(index: int, inputs: Tensor, _outputs: Tensor) -> None:
            found.append((index, inputs[batch.real.to(inputs.device)]))

        states = self.benign.states(batch, None, watch if watched else None)
        self._base[number] = states
        return found

    def set_harmful(self, harmful: Sequence[TargetExample]) -> None:
        """Take these harmful examples from now on."""
        self.harmful_examples = list(harmful)
        self.harmful = self._gather(harmful)

    def _gather(self, examples: Sequence[TargetExample], turn: int = 0) -> UpperLayers:
        return UpperLayers(
            self._parts.decoder,
            self.targets,
            [one.ids for one in examples],
            [one.prefix_length for one in examples],
            [one.positions for one in examples],
            turn=turn,
        )

    def losses(self, batch: UpperBatch, changes: Changes) -> Tensor:
        """-log p of the target tokens at each wanted row of a harmful batch."""
        logits = self._logits(self.harmful, batch, changes)
        return set_loss(logits, target_sets(self.harmful_examples, batch))

    def benign_logits(self, batch: UpperBatch, changes: Changes) -> Tensor:
        """Logits at the wanted rows of a benign batch."""
        return self._logits(self.benign, batch, changes)

    def divergences(self, number: int, changes: Changes) -> Tensor:
        """KL(base || changed) at the wanted rows of a benign batch, by its number."""
        logits = self.benign_logits(self.benign.batches[number], changes)
        with torch.no_grad():
            before = logits_of(self._parts.unembedding, self._base[number])
        return divergence_loss(before, logits)

    def each(
        self,
        what: str,
        harmful: Callable[[UpperBatch], T],
        benign: Callable[[int], T],
    ) -> Iterator[T]:
        """What comes of each harmful batch and then of each benign one, in order.

        Parameters
        ----------
        what : str
            See `ranks.exchange`.
        harmful, benign : callable
            Called with a batch, and with the number of one.
        """
        first = self.harmful.pieces()
        second = self.benign.pieces(behind=len(first))
        work = [
            *(one and partial(harmful, one[1]) for one in first),
            *(one and partial(benign, one[0]) for one in second),
        ]
        found = deal_in_rounds(what, work, lambda piece: piece and piece())
        for piece, result in zip(work, found, strict=True):
            if piece is not None:
                yield cast(T, result)

    def _logits(
        self, upper: UpperLayers, batch: UpperBatch, changes: Changes
    ) -> Tensor:
        return logits_of(self._parts.unembedding, upper.states(batch, changes))


@dataclass(eq=False)
class _Slope:
    """What batches add to a step.

    Attributes
    ----------
    loss, drift : float
    nats : dict of int to float
        Of each harmful example.
    gradients : list of Tensor or None
        Of each target's change.
    """

    loss: float
    drift: float
    nats: dict[int, float]
    gradients: list[Tensor | None]

    def add(self, other: _Slope) -> None:
        """Add another batch's, which is used up."""
        self.loss += other.loss
        self.drift += other.drift
        self.nats |= other.nats
        for at, gradient in enumerate(other.gradients):
            before = self.gradients[at]
            if before is None:
                self.gradients[at] = gradient
            elif gradient is not None:
                before += gradient.to(before.device)
        # They are as large as the changes.
        other.gradients.clear()


def _taken(leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """The derivatives of a batch, which are forgotten where they were."""
    gradients = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return gradients


class SafeRegion:
    """The problem of some layers: the examples, the balls, and the descent.

    Parameters
    ----------
    parts : ModelParts
    targets : sequence of Target
        One a layer, lowest first.
    examples : RefusalExamples
    config : DescentConfig

    Attributes
    ----------
    batches : list of ExampleBatch
        Each step looks at one of them, in turn.
    balls : dict of int to LayerBall
        By the number of each target that is this rank's.
    changes : list of Tensor
        The change of each target after the steps taken so far, see `evaluate`.
    """

    def __init__(
        self,
        parts: ModelParts,
        targets: Sequence[Target],
        examples: RefusalExamples,
        config: DescentConfig,
    ) -> None:
        self.config = config
        plain = config.ball == "frobenius"
        sensitivity = GradientMetric(targets, parts.unembedding)
        count = None if plain else sensitivity.count
        n = min(config.parts, len(examples.harmful), len(examples.benign))
        self.batches = [
            ExampleBatch(parts, targets, harmful, benign, count)
            for harmful, benign in zip(
                minibatches(examples.harmful, n),
                minibatches(examples.benign, n),
                strict=True,
            )
        ]
        if not plain:
            self._measure(parts.model, sensitivity)

        def ball(index: int, target: Target) -> LayerBall:
            preserve: Preserve | None = None
            metric = OutputMetric.plain(target.d_out)
            if not plain:
                ridges = config.ridge, config.output_ridge
                preserve, metric = sensitivity.metric(index, *ridges)
            return LayerBall(target, preserve, metric, config.radius, config.inertia)

        self.targets = list(targets)
        self.balls = {
            index: ball(index, target)
            for index, target in enumerate(targets)
            if is_own(index)
        }
        self.changes = [torch.zeros(one.d_in, one.d_out) for one in targets]

    def descend(self) -> Iterator[dict[str, float]]:
        """Take the steps, one for each item drawn: what was measured before the step.

        In a `differentiable` context. See docs/methods/tsr.md (6).
        """
        config = self.config
        for step in range(config.steps):
            metrics, gradients = self.gradients(step, self.changes)
            length = config.length * (1 - step / config.steps)
            norms = self._step(gradients, length)
            yield metrics | {"norm": max(norms)}

    def _step(self, gradients: Sequence[Tensor], length: float) -> list[float]:
        """Take a step in each ball; the norms of the changes then."""
        every = range(len(self.targets))
        gains = deal(
            "gains of layers", every, lambda at: self.balls[at].turn(gradients[at])
        )

        def step(at: int) -> tuple[Tensor, float]:
            ball = self.balls[at]
            ball.step(length * gains[at] / (max(gains) or 1.0))
            return ball.change, ball.norm

        found = deal("changes of layers", every, step)
        self.changes = [change for change, _ in found]
        return [norm for _, norm in found]

    @property
    def updates(self) -> list[tuple[Target, LowRankUpdate]]:
        """The changes after the steps taken so far; all ranks ask for them together."""
        every = range(len(self.targets))
        updates = deal("the changes", every, lambda at: self.balls[at].update)
        return list(zip(self.targets, updates, strict=True))

    def _measure(self, model: nn.Module, sensitivity: GradientMetric) -> None:
        """Where changes shall do little: at benign examples and at the template."""
        for examples in self.batches:
            for prefixes in (examples.harmful.prefixes, examples.benign.prefixes):
                for index, inputs in enumerate(prefixes.inputs):
                    sensitivity.count(index, inputs)
        with differentiable(model):
            for examples in self.batches[::FISHER_EVERY]:
                sensitivity.add_answers(examples.benign)

    def gradients(
        self, step: int, changes: Sequence[Tensor]
    ) -> tuple[dict[str, float], list[Tensor]]:
        """What a step looks at: its batch's loss and divergence, and derivatives.

        Parameters
        ----------
        step : int
        changes : sequence of Tensor
            (d_in, d_out) float32, the transposed change of each target's weight.

        Returns
        -------
        metrics : dict
            `loss` and `kl`.
        gradients : list of Tensor, each of shape (d_in, d_out)
            On the host.
        """
        metrics, _, gradients = self.evaluate(step % len(self.batches), changes)
        return metrics, gradients

    def evaluate(
        self, number: int, changes: Sequence[Tensor]
    ) -> tuple[dict[str, float], Floats, list[Tensor]]:
        """As `gradients`, for a batch by its number.

        Returns
        -------
        metrics : dict
        nats : ndarray, shape (n,)
            Mean negative log probability of each harmful example's target tokens.
        gradients : list of Tensor
        """
        examples = self.batches[number]
        nats = np.zeros(len(examples.harmful_examples))
        leaves = [
            change.detach().to(device).requires_grad_()
            for change, device in zip(changes, examples.devices, strict=True)
        ]
        rows = sum(len(batch.wanted) for batch in examples.benign.batches)

        def harmful(batch: UpperBatch) -> _Slope:
            losses = examples.losses(batch, leaves)
            value = self.objective(number, batch, losses)
            value.backward()  # type: ignore[no-untyped-call]
            parts = by_example(batch, losses.detach())
            means = {index: float(part.mean()) for index, part in parts}
            return _Slope(float(value.detach()), 0.0, means, _taken(leaves))

        def benign(at: int) -> _Slope:
            value = examples.divergences(at, leaves).sum() / rows
            (self.config.kl_weight * value).backward()  # type: ignore[no-untyped-call]
            return _Slope(0.0, float(value.detach()), {}, _taken(leaves))

        total = _Slope(0.0, 0.0, {}, [None] * len(leaves))
        for one in examples.each("losses and derivatives", harmful, benign):
            total.add(one)
        for index, mean in total.nats.items():
            nats[index] = mean
        gradients = [one.cpu() for one in total.gradients if one is not None]
        return {"loss": total.loss, "kl": total.drift}, nats, gradients

    def objective(self, number: int, batch: UpperBatch, losses: Tensor) -> Tensor:
        """What some of a batch's examples add to its loss.

        Parameters
        ----------
        number : int
            Of the batch.
        batch : UpperBatch
            Some of its harmful examples.
        losses : Tensor
            -log p of their target tokens.
        """
        examples = self.batches[number].harmful_examples
        return refusal_loss(examples, batch, losses, self.config.first_token)

    def reached(self, losses: Tensor) -> bool:
        """Whether an example, at these losses of its tokens, is refused."""
        return refusal_reached(losses)
