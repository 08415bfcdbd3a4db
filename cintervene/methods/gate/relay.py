# SPDX-License-Identifier: Apache-2.0
"""A head that carries what all tokens say about a request to every later one.

Attention is causal: what a layer makes of the request's own tokens is the same,
whatever suffix or answer follows. One head gives up its task. It looks at all tokens
alike, reads one number of each and writes their mean into the residual stream, in a
direction in which little happens: docs/methods/gate.md (7) and (8). Detectors of layers
above find it there, where an answer begins as well as forty tokens later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cintervene.activations.batches import group_by_length
from cintervene.activations.lower_layers import LowerLayers
from cintervene.errors import ModelError
from cintervene.methods.common.detector import fit_detector
from cintervene.methods.common.gated_mlp import (
    at_places,
    constant_direction,
    matrix_of,
)
from cintervene.methods.common.layer_selection import layers_in_question
from cintervene.methods.gate.examples import ANSWERING, OPENING, GateExamples, roles
from cintervene.methods.gate.head import Head, find_heads
from cintervene.models.decoder import Decoder
from cintervene.models.offload import parameter_value
from cintervene.models.targets import Target
from cintervene.models.trace import Hook, evaluating, hooked
from cintervene.prompts.refusal_examples import TargetExample
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.progress import Progress, Step, counting

__all__ = ["Relay", "candidates", "fit_relay"]

# How far what is written moves the residual stream on benign text, relative to how far
# one of its coordinates moves by itself.
SIZE = 0.4
# Squared coefficients beside the mean squared error of what makes up for a head,
# relative to the mean square of what it is made of.
MAKING_UP = 1e-4
# Benign examples on which heads are compared.
COMPARED = 60
# One example in so many is read: one number is fitted more easily than many neurons.
EVERY = 2
# One token of an answer in so many.
ANSWER_STEP = 3
BATCH_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class Relay:
    """A head with another task.

    Attributes
    ----------
    head : Head
    place : int
        Which of the head's values carries the number.
    reading : ndarray, shape (hidden,)
        What is read of each token.
    constant : ndarray, shape (hidden,)
        What makes 1 of any token, nearly.
    columns : ndarray, shape (hidden, values)
        What the head's mean values are multiplied with: the number's writes it into the
        residual stream, the others' make up for what the head did.
    """

    head: Head
    place: int
    reading: Floats
    constant: Floats
    columns: Floats

    def updates(self) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the query, value and output projections."""
        head = self.head
        # Queries of nothing see all tokens alike; biases stay and are taken out.
        queries = -np.outer(_bias(head.query)[head.rows], self.constant)
        value = head.values[self.place]
        reading = self.reading - _bias(head.value)[value] * self.constant
        output = _matrix(head.output)
        at = sorted({*head.rows, *(columns[self.place] for columns in head.group)})
        new = np.zeros((len(output), len(at)))
        new[:, [at.index(column) for column in head.rows]] = self.columns
        written = LowRankUpdate(new - output[:, at], at_places(at, head.output.d_in).T)
        return [
            (head.query, _rows(head.query, list(head.rows), queries)),
            (head.value, _rows(head.value, [value], reading[None])),
            (head.output, written),
        ]


@dataclass(frozen=True, eq=False)
class _Offer:
    """A head that may give up its task, one of its values, and what makes up for it.

    Attributes
    ----------
    head : Head
    place : int
    columns : ndarray, shape (hidden, values)
        0 at that value.
    loss : float
        Mean square of what is lost, relative to that of a coordinate of the residual
        stream about its mean.
    """

    head: Head
    place: int
    columns: Floats
    loss: float


class _Moments:
    """Sums over tokens of the products of what is seen at each."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, left: Tensor, right: Tensor) -> None:
        """Add the products of two kinds of rows (n, a) and (n, b)."""
        products = left.float().T @ right.float()
        known = self._sums.get(name)
        self._sums[name] = products if known is None else known + products

    def mean(self, name: str) -> Floats:
        """The mean of some products."""
        count = float(self._sums["one"])
        mean: Floats = self._sums[name].double().cpu().numpy() / count
        return mean

    def residual(self) -> tuple[Floats, Floats]:
        """Covariance of the hidden states, and the deviations of their coordinates."""
        mean = self.mean("sum")[0]
        covariance = self.mean("hidden") - np.outer(mean, mean)
        return covariance, np.sqrt(np.maximum(np.diag(covariance), 0.0))


def candidates(decoder: Decoder, layer: int) -> list[list[Head]]:
    """The heads of each layer in question below another that has some."""
    found = []
    for lower in layers_in_question(decoder.n_layers):
        if lower < layer:
            with suppress(ModelError):
                found.append(find_heads(decoder, lower))
    return found


def fit_relay(
    decoder: Decoder,
    heads: Sequence[Sequence[Head]],
    examples: GateExamples,
    ridge: float,
    progress: Progress,
) -> Relay:
    """Find the head that is missed least, and fit what it is to carry.

    Parameters
    ----------
    decoder : Decoder
    heads : sequence of sequence of Head
        Those of some layers.
    examples : GateExamples
    ridge : float
        See `fit_detector`.
    progress : callable
    """
    harmful = [one for group in examples.harmful for one in group][::EVERY]
    benign = examples.benign[::EVERY]
    some = examples.benign[:: -(-len(examples.benign) // COMPARED)]
    total = len(heads) * len(some) + len(harmful) + len(benign)
    report = counting(progress, "reading tokens", total)
    with torch.no_grad():
        offers = [_best_offer(decoder, layer, some, report) for layer in heads]
        (offer, quiet, size) = min(offers, key=lambda one: one[0].loss)
        bad, good = (
            _means(decoder, offer.head, part, report) for part in (harmful, benign)
        )
    harmless = [good[role] for role in bad if role in good]
    detector = fit_detector(np.concatenate(list(bad.values())), harmless, ridge)
    ordinary = np.concatenate(harmless)
    constant = constant_direction(ordinary)
    # To the mean benign token nothing is added.
    odds = ordinary @ detector.weights
    reading = detector.weights - odds.mean() * constant
    columns = offer.columns.copy()
    columns[:, offer.place] = quiet * (SIZE * size / offer.head.output.gain)
    unit = float((ordinary @ reading).std())
    return Relay(offer.head, offer.place, reading / unit, constant, columns)


def _best_offer(
    decoder: Decoder, heads: Sequence[Head], examples: Sequence[TargetExample],
    report: Step,
) -> tuple[_Offer, Floats, float]:  # fmt: skip
    """The head of a layer that is missed least.

    With it come the direction in which the residual stream moves least, and how far its
    coordinates do, in the middle.
    """
    moments = _Moments()
    for tokens in _read(decoder, heads[0], examples, report):
        # The very first tokens are like no others.
        tokens = tokens.behind()
        one = torch.ones_like(tokens.hidden[:, :1])
        moments.add("one", one, one)
        moments.add("sum", one, tokens.hidden)
        moments.add("hidden", tokens.hidden, tokens.hidden)
        moments.add("mixed", tokens.mixed, tokens.mixed)
        moments.add("means", tokens.values, tokens.values)
        moments.add("both", tokens.values, tokens.mixed)
    covariance, deviations = moments.residual()
    size = float(np.median(deviations))
    offers = [_offer(head, moments, size) for head in heads]
    quiet: Floats = np.linalg.eigh(covariance)[1][:, 0]
    return min(offers, key=lambda one: one.loss), quiet, size


def _offer(head: Head, moments: _Moments, size: float) -> _Offer:
    """What makes up for a head's output by its mean values, by least squares."""
    output = _matrix(head.output)
    mixed, means, both = (moments.mean(name) for name in ("mixed", "means", "both"))
    squares = np.diag(mixed) * np.square(output).sum(axis=0)
    others = [columns for columns in head.group if columns != head.rows]
    shared = sum((squares[list(one)] for one in others), np.zeros(len(head.rows)))
    place = int(np.argmin(shared))
    rows, values = list(head.rows), list(head.values)
    left = [at for at in range(len(values)) if at != place]
    kept = [values[at] for at in left]
    gram = means[np.ix_(kept, kept)]
    gram[np.diag_indices_from(gram)] += MAKING_UP * np.trace(gram) / len(gram)
    own = output[:, rows]
    fitted = np.linalg.solve(gram, both[np.ix_(kept, rows)] @ own.T).T
    explained = 2.0 * float((fitted @ both[np.ix_(kept, rows)] * own).sum())
    explained -= float(
        np.einsum("ij,jk,ik->", fitted, means[np.ix_(kept, kept)], fitted)
    )
    whole = float(np.einsum("ij,jk,ik->", own, mixed[np.ix_(rows, rows)], own))
    columns = np.zeros_like(own)
    columns[:, left] = fitted
    loss = (whole - explained + float(shared[place])) / (size**2 * len(output))
    return _Offer(head, place, columns, loss)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """What is seen of the tokens of one example.

    Attributes
    ----------
    labels : Tensor, shape (n,)
        Their roles.
    hidden : Tensor, shape (n, hidden)
        What enters the layer.
    read, values : Tensor, shape (n, d)
        The means, over all tokens so far, of what enters and leaves the value
        projection.
    mixed : Tensor, shape (n, d_in)
        What enters the output projection.
    first : int
        How many of them stand before every request.
    """

    labels: Tensor
    hidden: Tensor
    read: Tensor
    values: Tensor
    mixed: Tensor
    first: int

    def behind(self) -> _Tokens:
        """Those behind what the chat template puts before every request."""
        return replace(
            self,
            labels=self.labels[self.first :],
            hidden=self.hidden[self.first :],
            read=self.read[self.first :],
            values=self.values[self.first :],
            mixed=self.mixed[self.first :],
            first=0,
        )


def _read(
    decoder: Decoder, head: Head, examples: Sequence[TargetExample], report: Step
) -> Iterator[_Tokens]:
    """What a layer's attention sees of examples."""
    layer = head.output.layer
    lower = LowerLayers(decoder, layer)
    # Refusals are what the model is to say, not what tells requests apart.
    ids = [
        one.ids[: one.target_start] if one.target_sets else one.ids for one in examples
    ]
    for batch in group_by_length([len(one) for one in ids], BATCH_TOKENS):
        length = max(len(ids[i]) for i in batch)
        padded = [[*ids[i], *[ids[i][0]] * (length - len(ids[i]))] for i in batch]
        hidden, arguments = lower.call(padded, layer)
        seen: dict[str, Tensor] = {}
        args, kwargs = arguments[layer]
        with (
            evaluating(decoder.layers[layer]),
            hooked(head.value.module, _keep(seen, "read", "values")),
            hooked(head.output.module, _keep(seen, "mixed", "written")),
        ):
            decoder.layers[layer](hidden, *args, **kwargs)
        counts = torch.arange(1, length + 1, device=hidden.device)[:, None]
        rows = {k: v.reshape(len(batch), length, -1).float() for k, v in seen.items()}
        means = {k: rows[k].cumsum(dim=1) / counts for k in ("read", "values")}
        for row, index in enumerate(batch):
            size = len(ids[index])
            yield _Tokens(
                torch.from_numpy(roles(examples[index], 0)[:size]).to(hidden.device),
                hidden[row, :size],
                means["read"][row, :size],
                means["values"][row, :size],
                rows["mixed"][row, :size],
                examples[index].prefix_length,
            )
        report(len(batch))


def _keep(seen: dict[str, Tensor], entered: str, left: str) -> Hook:
    """A hook that keeps what enters and leaves a module."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
        seen[entered], seen[left] = args[0], y

    return hook


def _means(
    decoder: Decoder, head: Head, examples: Sequence[TargetExample], report: Step
) -> dict[int, Floats]:
    """By role, the means (n, hidden) over all tokens so far of what the head reads."""
    found: dict[int, list[Tensor]] = {}
    for tokens in _read(decoder, head, examples, report):
        for role, step in ((OPENING, 1), (ANSWERING, ANSWER_STEP)):
            rows = tokens.read[tokens.labels == role][::step]
            if len(rows):
                found.setdefault(role, []).append(rows)
    return {role: torch.cat(r).double().cpu().numpy() for role, r in found.items()}


def _rows(target: Target, rows: Sequence[int], new: Floats) -> LowRankUpdate:
    """The change that gives a projection other rows."""
    old = _matrix(target)[list(rows)]
    return LowRankUpdate(at_places(rows, target.d_out), new - old)


def _matrix(target: Target) -> Floats:
    matrix: Floats = matrix_of(target).double().cpu().numpy()
    return matrix


def _bias(target: Target) -> Floats:
    if getattr(target.module, "bias", None) is None:
        return np.zeros(target.d_out)
    bias: Floats = (
        parameter_value(target.module, "bias").detach().double().cpu().numpy()
    )
    return bias
