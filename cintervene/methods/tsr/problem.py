# SPDX-License-Identifier: Apache-2.0
"""Towards the safe region (TSR): a small change that makes a model refuse.

The loss is the negative log probability of refusals after harmful requests, plus a
divergence from the model's own answers to others: docs/methods/tsr.md (3). It is
lowered by projected gradient steps within a ball of changes at each of some layers, on
some of the examples at a time.

Source: arXiv 2510.03567, TSR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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

__all__ = ["ExampleBatch", "SafeRegion"]

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
        self.benign = self._gather(benign)
        with torch.no_grad():
            self._base = [self._unchanged(b, count) for b in self.benign.batches]

    def _unchanged(
        self, batch: UpperBatch, count: Callable[[int, Tensor], None] | None
    ) -> Tensor:
        """The base model's last hidden states at a benign batch's wanted rows."""
        if count is None:
            return self.benign.states(batch, None)

        def watch(index: int, inputs: Tensor, _outputs: Tensor) -> None:
            count(index, inputs[batch.real.to(inputs.device)])

        return self.benign.states(batch, None, watch)

    def set_harmful(self, harmful: Sequence[TargetExample]) -> None:
        """Take these harmful examples from now on."""
        self.harmful_examples = list(harmful)
        self.harmful = self._gather(harmful)

    def _gather(self, examples: Sequence[TargetExample]) -> UpperLayers:
        return UpperLayers(
            self._parts.decoder,
            self.targets,
            [one.ids for one in examples],
            [one.prefix_length for one in examples],
            [one.positions for one in examples],
        )

    def losses(self, changes: Changes) -> Iterator[tuple[UpperBatch, Tensor]]:
        """-log p of the target tokens: of each batch one for each wanted row."""
        for batch in self.harmful.batches:
            logits = self._logits(self.harmful, batch, changes)
            yield batch, set_loss(logits, target_sets(self.harmful_examples, batch))

    def benign_logits(self, changes: Changes) -> Iterator[tuple[UpperBatch, Tensor]]:
        """Logits at the wanted rows of each benign batch."""
        for batch in self.benign.batches:
            yield batch, self._logits(self.benign, batch, changes)

    def divergences(self, changes: Changes) -> Iterator[Tensor]:
        """KL(base || changed) at the wanted rows of each benign batch."""
        changed = self.benign_logits(changes)
        for (_, logits), base in zip(changed, self._base, strict=True):
            with torch.no_grad():
                before = logits_of(self._parts.unembedding, base)
            yield divergence_loss(before, logits)

    def _logits(
        self, upper: UpperLayers, batch: UpperBatch, changes: Changes
    ) -> Tensor:
        return logits_of(self._parts.unembedding, upper.states(batch, changes))


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
    balls : list of LayerBall
        One for each target.
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
        metrics: Sequence[tuple[Preserve | None, OutputMetric]]
        if plain:
            metrics = [(None, OutputMetric.plain(one.d_out)) for one in targets]
        else:
            metrics = self._metrics(parts.model, sensitivity)
        self.balls = [
            LayerBall(target, preserve, metric, config.radius, config.inertia)
            for target, (preserve, metric) in zip(targets, metrics, strict=True)
        ]

    def descend(self) -> Iterator[dict[str, float]]:
        """Take the steps, one for each item drawn: what was measured before the step.

        In a `differentiable` context. See docs/methods/tsr.md (6).
        """
        config = self.config
        for step in range(config.steps):
            metrics, gradients = self.gradients(step, [b.change for b in self.balls])
            gains = [
                ball.turn(gradient)
                for ball, gradient in zip(self.balls, gradients, strict=True)
            ]
            length = config.length * (1 - step / config.steps)
            for ball, gain in zip(self.balls, gains, strict=True):
                ball.step(length * gain / (max(gains) or 1.0))
            yield metrics | {"norm": max(ball.norm for ball in self.balls)}

    @property
    def updates(self) -> list[tuple[Target, LowRankUpdate]]:
        """The changes after the steps taken so far."""
        return [(ball.target, ball.update) for ball in self.balls]

    def _metrics(
        self, model: nn.Module, sensitivity: GradientMetric
    ) -> list[tuple[Preserve, OutputMetric]]:
        """Where changes shall do little: at benign examples and at the template."""
        for examples in self.batches:
            for prefixes in (examples.harmful.prefixes, examples.benign.prefixes):
                for index, inputs in enumerate(prefixes.inputs):
                    sensitivity.count(index, inputs)
        with differentiable(model):
            for examples in self.batches[::FISHER_EVERY]:
                sensitivity.add_answers(examples.benign)
        return sensitivity.metrics(self.config.ridge, self.config.output_ridge)

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
        loss = drift = 0.0
        for batch, losses in examples.losses(leaves):
            value = self.objective(number, batch, losses)
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach())
            for index, target_losses in by_example(batch, losses.detach()):
                nats[index] = float(target_losses.mean())
        rows = sum(len(batch.wanted) for batch in examples.benign.batches)
        for divergences in examples.divergences(leaves):
            value = divergences.sum() / rows
            (self.config.kl_weight * value).backward()  # type: ignore[no-untyped-call]
            drift += float(value.detach())
        gradients = [leaf.grad.cpu() for leaf in leaves if leaf.grad is not None]
        return {"loss": loss, "kl": drift}, nats, gradients

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
