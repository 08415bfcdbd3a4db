# SPDX-License-Identifier: Apache-2.0
"""Towards the safe region (TSR): a small change that makes a model refuse.

The loss is the negative log probability of safe continuations after harmful requests,
plus a divergence from the model's own answers to others. It is lowered by projected
gradient steps within a ball of changes at each of some layers, on some of the examples
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from cintervene.activations.upper_layers import (
    Changes,
    UpperBatch,
    UpperLayers,
    differentiable,
    logits_of,
)
from cintervene.methods.common.gradient_metric import GradientMetric
from cintervene.methods.common.objectives import (
    divergence_loss,
    opening_reached,
    refusal_loss,
    set_loss,
)
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.methods.config import DescentConfig
from cintervene.methods.tsr.layer_ball import (
    Floats,
    LayerBall,
)
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import (
    RefusalExamples,
    TargetExample,
    divided,
)
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.update import LowRankUpdate

__all__ = [
    "ExampleBatch",
    "SafeRegion",
]

# Of the parts, one in so many tells how outputs matter: a mean over thousands of
# tokens changes little with more of them, and each costs a pass with gradients.
FISHER_EVERY = 4


class ExampleBatch:
    """Some harmful and benign examples at the layers that are changed.

    Parameters
    ----------
    harmful, benign : sequence of TargetExample
        At least one of each.
    count : callable, optional
        Called with the number of a target and its inputs (n, d_in) at all tokens of
        benign examples behind the prefixes.
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
        self.teach(harmful)
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

    def teach(self, harmful: Sequence[TargetExample]) -> None:
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
        """-log p of the safe tokens: of each batch one for each wanted row."""
        for batch in self.harmful.batches:
            logits = self._logits(self.harmful, batch, changes)
            sets = [
                s for i in batch.sequences for s in self.harmful_examples[i].target_sets
            ]
            yield batch, set_loss(logits, sets)

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
        samples = zip(
            divided(examples.harmful, n), divided(examples.benign, n), strict=True
        )
        self.batches = [
            ExampleBatch(parts, targets, harmful, benign, count)
            for harmful, benign in samples
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
        """Take the steps, one for each item drawn: what was seen before the step.

        In a `differentiable` context.
        """
        config = self.config
        for step in range(config.steps):
            examples = self.batches[step % len(self.batches)]
            seen, gradients = self.gradients(examples, [b.change for b in self.balls])
            gains = [
                ball.turn(gradient)
                for ball, gradient in zip(self.balls, gradients, strict=True)
            ]
            length = config.length * (1 - step / config.steps)
            for ball, gain in zip(self.balls, gains, strict=True):
                ball.step(length * gain / (max(gains) or 1.0))
            yield seen | {"norm": max(ball.norm for ball in self.balls)}

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
        self, examples: ExampleBatch, changes: Sequence[Tensor]
    ) -> tuple[dict[str, float], list[Floats]]:
        """Derivatives with respect to the transposed changes of the weights."""
        leaves = [
            change.to(device).clone().requires_grad_()
            for change, device in zip(changes, examples.devices, strict=True)
        ]
        loss = drift = 0.0
        for batch, losses in examples.losses(leaves):
            value = self.objective(examples, batch, losses)
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach())
        rows = sum(len(batch.wanted) for batch in examples.benign.batches)
        for divergences in examples.divergences(leaves):
            value = divergences.sum() / rows
            (self.config.kl_weight * value).backward()  # type: ignore[no-untyped-call]
            drift += float(value.detach())
        gradients = [leaf.grad for leaf in leaves]
        return {"loss": loss, "kl": drift}, [
            gradient.double().cpu().numpy()
            for gradient in gradients
            if gradient is not None
        ]

    def objective(
        self, examples: ExampleBatch, batch: UpperBatch, losses: Tensor
    ) -> Tensor:
        """What a batch's tokens add to the mean loss of a batch's examples."""
        counts = [
            len(examples.harmful_examples[i].target_sets) for i in batch.sequences
        ]
        total = refusal_loss(losses, counts, self.config.first_token)
        return total / len(examples.harmful_examples)

    def reached(self, losses: Tensor) -> bool:
        """Whether the first tokens of a refusal are each more likely than not."""
        return opening_reached(losses)
