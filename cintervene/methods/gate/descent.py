# SPDX-License-Identifier: Apache-2.0
"""Neurons that refuse: fitted to tokens, what they add learnt, measured.

Where ranks share work, a batch of examples is the work of one of them. What comes of
batches is summed in their order, so that it is the same bits on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.activations.upper_layers import UpperBatch, UpperLayers, logits_of
from cintervene.errors import ModelError
from cintervene.methods.common.descent import minibatches
from cintervene.methods.common.gated_mlp import GatedMLP, Neurons
from cintervene.methods.common.objectives import (
    by_example,
    divergence_loss,
    refusal_loss,
    refusal_reached,
    set_loss,
    target_sets,
)
from cintervene.methods.common.sweep import RefusalPoint
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.gate.examples import READING, GateExamples, roles
from cintervene.methods.gate.gates import EVEN, Thresholds, Tokens, fit_gates
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import TargetExample
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.progress import Progress, counting, silent

__all__ = ["GateDescent", "GateSweepPoint", "tuning_states"]


@dataclass(frozen=True)
class GateSweepPoint(RefusalPoint):
    """What thresholds do on the tuning split.

    Attributes
    ----------
    opening, answering : float
        See `Thresholds`.
    refused : float
        Share of harmful examples, with prefills and without, after which the first
        tokens of a refusal are each more likely than not.
    false_refusals : float
        Share of benign ones in which a refusal would begin, and does not in the base.
    kl : float
        Nats a token between base and changed model on benign examples.
    """

    opening: float
    answering: float
    refused: float
    false_refusals: float
    kl: float

    @property
    def thresholds(self) -> Thresholds:
        """The two together."""
        return Thresholds(self.opening, self.answering)

    @property
    def boldness(self) -> float:
        """Orders points by how much is changed."""
        return -self.opening - self.answering


class _Captured:
    """Examples and what enters the MLP at their tokens from the first ones on.

    Parameters
    ----------
    parts : ModelParts
    mlp : GatedMLP
    examples : sequence of TargetExample
    first : sequence of int
        Before these tokens nothing is added. What examples have in common there is run
        once.
    above : bool
        See `UpperLayers`.
    """

    def __init__(
        self,
        parts: ModelParts,
        mlp: GatedMLP,
        examples: Sequence[TargetExample],
        first: Sequence[int],
        above: bool = True,
    ) -> None:
        self.examples, self._first = list(examples), list(first)
        self.upper = UpperLayers(
            parts.decoder, [mlp.block], [one.ids for one in examples], first,
            [one.positions for one in examples], above=above,
        )  # fmt: skip
        self.inputs = [batch.inputs for batch in self.upper.batches]

    def states(self) -> list[Tensor | None]:
        """What the final norm reads of this rank's batches when nothing is changed."""
        return [
            self.upper.states(batch, None) if batch.is_here else None
            for batch in self.upper.batches
        ]

    def tokens(self) -> Iterator[tuple[Tensor, npt.NDArray[np.int64]]]:
        """Inputs and roles of each example's tokens, of all ranks."""
        found = self.upper.deal("inputs of tokens", lambda at, _: self.inputs[at])
        for batch, inputs in found:
            for row, index in enumerate(batch.sequences):
                labels = roles(self.examples[index], self._first[index])
                yield inputs[row, : len(labels)], labels


class GateDescent:
    """The neurons of one layer: detectors fitted, what they add learnt, measured.

    Parameters
    ----------
    parts : ModelParts
    mlp : GatedMLP
    examples : GateExamples
    config : GateConfig
    progress : callable
    base : list of Tensor or None, optional
        `tuning_states` of the model that drift is measured from; by default of this
        one.
    """

    def __init__(
        self,
        parts: ModelParts,
        mlp: GatedMLP,
        examples: GateExamples,
        config: GateConfig,
        progress: Progress = silent,
        base: list[Tensor | None] | None = None,
    ) -> None:
        self.mlp, self.unembedding, self.config = mlp, parts.unembedding, config
        n_harmful = sum(map(len, examples.harmful))
        others = (examples.benign, examples.tune_harmful, examples.tune_benign)
        total = n_harmful + sum(map(len, others))
        report = counting(progress, "reading requests", total)

        def captured(
            examples: Sequence[TargetExample], first: Sequence[int], above: bool = True
        ) -> _Captured:
            result = _Captured(parts, mlp, examples, first, above)
            report(len(examples))
            return result

        def requests_on(examples: Sequence[TargetExample]) -> _Captured:
            return captured(examples, [one.prefix_length for one in examples])

        def answers(examples: Sequence[TargetExample], above: bool) -> _Captured:
            return captured(examples, [one.opening for one in examples], above)

        wanted = max(1, round(n_harmful / config.examples_per_step))
        # The examples about a request are not parted.
        count = min(wanted, len(examples.harmful))
        groups = minibatches(examples.harmful, count)
        unused = [_without_target(one) for g in groups[config.steps :] for one in g]
        with torch.no_grad():
            # The neurons learn from the answers alone, which share their request.
            self.batches = [answers(group, True) for group in groups[: config.steps]]
            # What the detectors alone need is given back when they are fitted.
            rest = [answers(unused, False)] if unused else []
            self._harmful = [*self.batches, *rest]
            self._benign = [answers(examples.benign, False)]
            self.tune_harmful = requests_on(examples.tune_harmful)
            self.tune_benign = requests_on(examples.tune_benign)
            self._base = self.tune_benign.states() if base is None else base

    def fit(self) -> None:
        """Fit the detectors and find neurons for them."""
        harmful, benign = _all_tokens(self._harmful), _all_tokens(self._benign)
        # The requests, which are run by themselves.
        requests = self._benign[0].upper.prefixes.inputs[0].cpu().float().numpy()
        benign = Tokens(
            np.concatenate([benign.inputs, requests]),
            np.concatenate([benign.roles, np.full(len(requests), READING)]),
        )
        config, count = self.config, len(harmful.to_be_found)
        self.places = self.mlp.idlest(torch.from_numpy(benign.inputs), count)
        self.gates = fit_gates(
            self.mlp, harmful, benign, self.places, config.ridge, config.sharpness
        )
        self._harmful.clear()
        self._benign.clear()

    def descend(self) -> Iterator[dict[str, float]]:
        """Learn what the neurons add; what was measured before each step.

        See docs/methods/gate.md (5).
        """
        config = self.config
        neurons = self.gates.neurons(EVEN)
        for captured in self.batches:
            self._open(captured, neurons)
        size = _typical_size([captured.upper for captured in self.batches])
        hidden = self.mlp.block.d_out
        self.added = torch.zeros(len(self.places), hidden, requires_grad=True)
        descent = torch.optim.Adam([self.added])
        for step in range(config.steps):
            captured = self.batches[step % len(self.batches)]
            descent.param_groups[0]["lr"] = (
                config.length * size * (1 - step / config.steps)
            )
            descent.zero_grad()
            loss = 0.0
            slope = partial(self._slope, captured)
            for _, (value, gradient) in captured.upper.deal("losses", slope):
                loss += value
                if self.added.grad is None:
                    self.added.grad = gradient
                else:
                    self.added.grad += gradient
            descent.step()
            yield {"loss": loss}
        self.added = self.added.detach().to(self.mlp.down.dtype).float()

    def _slope(
        self, captured: _Captured, _number: int, batch: UpperBatch
    ) -> tuple[float, Tensor]:
        """A batch's part of the loss and its derivative by what neurons add."""
        added = self.added.detach().requires_grad_()
        losses = self._losses(captured, batch, added)
        first = self.config.first_token
        value = refusal_loss(captured.examples, batch, losses, first)
        value.backward()  # type: ignore[no-untyped-call]
        assert added.grad is not None
        return float(value.detach()), added.grad

    def measure(
        self, thresholds: Thresholds, openings: Sequence[int]
    ) -> GateSweepPoint:
        """What thresholds do on the tuning split, weights rounded.

        Parameters
        ----------
        thresholds : Thresholds
        openings : sequence of int
            Tokens that begin a refusal.
        """
        neurons = self.gates.neurons(thresholds).beside(self.gates.idle)
        added = torch.cat([self.added, -self.mlp.columns(self.places)])
        tune = self.tune_benign
        self._open(self.tune_harmful, neurons)
        self._open(tune, neurons)

        def refused(_number: int, batch: UpperBatch) -> list[bool]:
            losses = self._losses(self.tune_harmful, batch, added)
            return [refusal_reached(one) for _, one in by_example(batch, losses)]

        def drift(number: int, batch: UpperBatch) -> tuple[Tensor, int]:
            base = self._base[number]
            assert base is not None, "it is another rank's"
            before = logits_of(self.unembedding, base)
            after = self._logits(tune, batch, added)
            new = _new_openings(batch, before, after, openings)
            return divergence_loss(before, after), len(new)

        found = self.tune_harmful.upper.deal("refusals", refused)
        reached = [one for _, of_batch in found for one in of_batch]
        drifts = [one for _, one in tune.upper.deal("drift", drift)]
        kl = float(torch.cat([divergences for divergences, _ in drifts]).mean())
        false = sum(count for _, count in drifts) / len(tune.examples)
        return GateSweepPoint(*thresholds, sum(reached) / len(reached), false, kl)

    def updates(self, thresholds: Thresholds) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the three matrices."""
        return self.mlp.replaced(
            self.places, self.gates.gate(thresholds), self.gates.up, self.added
        )

    def _open(self, captured: _Captured, neurons: Neurons) -> None:
        """Let neurons see what enters the MLP, on which alone depends what they add."""
        for batch, inputs in zip(captured.upper.batches, captured.inputs, strict=True):
            if batch.is_here:
                batch.inputs = self.mlp.activations(inputs, neurons)

    def _losses(self, captured: _Captured, batch: UpperBatch, added: Tensor) -> Tensor:
        """-log p of the target tokens at a batch's wanted rows."""
        logits = self._logits(captured, batch, added)
        return set_loss(logits, target_sets(captured.examples, batch))

    def _logits(self, captured: _Captured, batch: UpperBatch, added: Tensor) -> Tensor:
        states = captured.upper.states(batch, [added.to(batch.inputs.device)])
        return logits_of(self.unembedding, states)


def tuning_states(
    parts: ModelParts, mlp: GatedMLP, examples: GateExamples
) -> list[Tensor | None]:
    """What the model as it is makes of the tuning split's benign examples."""
    benign = examples.tune_benign
    with torch.no_grad():
        first = [one.prefix_length for one in benign]
        return _Captured(parts, mlp, benign, first).states()


def _without_target(example: TargetExample) -> TargetExample:
    """The same without the refusal, whose tokens are easily told."""
    return replace(example, ids=example.ids[: example.target_start], target_sets=())


def _all_tokens(captured: Sequence[_Captured]) -> Tokens:
    pairs = [pair for one in captured for pair in one.tokens()]
    return Tokens(
        torch.cat([inputs for inputs, _ in pairs]).cpu().float().numpy(),
        np.concatenate([labels for _, labels in pairs]),
    )


def _typical_size(uppers: Sequence[UpperLayers]) -> float:
    """How large values are that move the residual stream by its own median size."""
    values = [
        value
        for upper in uppers
        for _, value in upper.deal("sizes of states", _median_size)
    ]
    size = float(torch.stack([value.cpu() for value in values]).mean())
    gain = uppers[0].gain
    if not gain > 0.0:
        raise ModelError(
            "layers: what the MLP of the layer returns does not reach the residual "
            "stream; name another one, e.g. layers=[16]"
        )
    return size / gain


def _median_size(_number: int, batch: UpperBatch) -> Tensor:
    return batch.hidden.float().abs().median()


def _new_openings(
    batch: UpperBatch, base: Tensor, logits: Tensor, openings: Sequence[int]
) -> set[int]:
    """The examples of a batch in which a refusal begins that the base does not say."""
    opening = torch.tensor(openings).to(logits.device)
    new = torch.isin(logits.argmax(-1), opening) & ~torch.isin(base.argmax(-1), opening)
    return set(batch.owners.to(new.device)[new].tolist())
