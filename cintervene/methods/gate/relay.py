# SPDX-License-Identifier: Apache-2.0
"""A flag at the end of a harmful request, and a head that all later tokens see it by.

Attention is causal: what layers make of a request's own tokens is the same, bit by bit,
whatever answer is begun behind it. Neurons of one layer raise a flag at the token that
ends a harmful request; in the layer above, all queries have a direction in common, so
that a key of that direction, which only the flag has, draws nearly all of their
attention, and they carry the flag on: docs/methods/gate.md (7) to (9). Where there is
no flag, hardly anything changes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.lower_layers import LowerLayers
from cintervene.errors import ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.gated_mlp import GatedMLP, at_places, matrix_of
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.common.layer_selection import layers_in_question
from cintervene.methods.gate.examples import GateExamples
from cintervene.methods.gate.flag import Flag, fit_flag, requests_of
from cintervene.methods.gate.head import Head, find_heads
from cintervene.methods.gate.watched import ENTERS, Watched, watched
from cintervene.models.decoder import Decoder
from cintervene.models.offload import parameter_value
from cintervene.models.targets import Target
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.progress import Progress, counting

__all__ = ["Carrier", "Relay", "find_carrier", "fit_relay"]

# Sizes of the flag, and of what the head makes of it, relative to the root mean square
# of the residual stream. The larger the first, the less of it is found elsewhere.
RAISED, CARRIED = 12.0, 4.0
# What the flag adds to the logarithm of the attention that is paid to it.
DRAWN = 20.0
# Of the examples, how many of each kind the head is fitted to.
LOOKED_AT = 60
# Ridges relative to the mean of what they are added to.
RIDGE, RIDGE_READ = 1e-2, 1e-3
# Tokens between a request's end and a query, besides those of the examples, and the
# longest distance that is looked at.
FARTHER, FARTHEST = (0, 40, 120), 512


@dataclass(frozen=True, eq=False)
class Carrier:
    """A layer's MLP and the heads of the layer above.

    Attributes
    ----------
    mlp : GatedMLP
    heads : list of Head
    turns : tuple of Tensor, each of shape (distances, values)
        Cosines and sines by which positions turn queries and keys.
    """

    mlp: GatedMLP
    heads: list[Head]
    turns: tuple[Tensor, Tensor]

    def turned(self, queries: Tensor, distances: Tensor) -> Tensor:
        """Queries (n, heads, values) as keys see them that are so far behind."""
        half = queries.shape[-1] // 2
        other = torch.cat([-queries[..., half:], queries[..., :half]], dim=-1)
        cosines, sines = (table[distances][:, None] for table in self.turns)
        return queries * cosines + other * sines


@dataclass(frozen=True, eq=False)
class Relay:
    """A flag and the head that carries it.

    Attributes
    ----------
    flag : Flag
    head : Head
    place : int
        Which of the head's values carries it.
    reading : ndarray, shape (hidden,)
        Finds 1 in what the attention reads where the flag stands, and nearly 0
        elsewhere.
    constant : ndarray, shape (hidden,)
        Finds nearly 1 in what the attention reads, anywhere.
    key : ndarray, shape (values,)
        What the flag adds to the head's key.
    written : ndarray, shape (hidden,)
        What is added to the residual stream where the flag is seen.
    """

    flag: Flag
    head: Head
    place: int
    reading: Floats
    constant: Floats
    key: Floats
    written: Floats

    def updates(self) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the MLP, and of the key, value and output projections."""
        head, reading = self.head, self.reading[None]
        keys = np.zeros((head.key.d_out, 1))
        keys[list(head.values), 0] = self.key
        value = head.values[self.place]
        # A bias stays as it is and is taken out.
        number = reading - _bias(head.value)[value] * self.constant
        # The other heads that share this value lose it.
        columns = [one[self.place] for one in head.group]
        output = _matrix(head.output)
        new = np.zeros((len(output), len(columns)))
        new[:, columns.index(head.rows[self.place])] = self.written
        return [
            *self.flag.updates(),
            (head.key, LowRankUpdate(keys, reading)),
            (
                head.value,
                LowRankUpdate(
                    at_places([value], head.value.d_out),
                    number - _matrix(head.value)[[value]],
                ),
            ),
            (
                head.output,
                LowRankUpdate(
                    new - output[:, columns], at_places(columns, head.output.d_in).T
                ),
            ),
        ]


def find_carrier(decoder: Decoder, layer: int) -> Carrier | None:
    """The nearest two layers in question below another that can do it."""
    lowest = layers_in_question(decoder.n_layers)[0]
    for upper in range(layer - 1, max(0, lowest - 1), -1):
        with suppress(ModelError):
            heads = find_heads(decoder, upper)
            turns = _turns(decoder, upper, len(heads[0].rows))
            return Carrier(find_gated_mlp(decoder, upper - 1), heads, turns)
    return None


def _turns(decoder: Decoder, layer: int, values: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines as the layer is given them."""
    _, arguments = LowerLayers(decoder, layer).call([[0] * FARTHEST], 0)
    found = arguments[layer][1].get("position_embeddings")
    if not isinstance(found, tuple) or len(found) != 2:
        raise ModelError(f"layer {layer}: expected queries that positions turn")
    tables = tuple(table.reshape(FARTHEST, -1).double().cpu() for table in found)
    if any(table.shape[1] != values for table in tables):
        raise ModelError(f"layer {layer}: expected positions that turn whole queries")
    return tables[0], tables[1]


@dataclass
class _Sums:
    """What is summed over tokens."""

    count: int = 0
    entering: Tensor | float = 0.0
    between: Tensor | float = 0.0
    read: Tensor | float = 0.0
    mean_read: Tensor | float = 0.0
    mixed: Tensor | float = 0.0
    queries: list[Tensor] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    def add(self, parts: Watched, carrier: Carrier, end: int) -> None:
        """Add a sequence's tokens, its request's end among them."""
        hidden = parts[ENTERS][0].double().cpu()
        size = hidden.square().mean(dim=1, keepdim=True).sqrt()
        mixed, written = (x.double().cpu() for x in parts["output"])
        gain = carrier.heads[0].output.gain
        self.count += len(hidden)
        between = (hidden + gain * written) / size
        self.entering = self.entering + (hidden / size).T @ (hidden / size)
        self.between = self.between + between.T @ between
        read = parts["value"][0].double().cpu()
        self.read = self.read + read.T @ read
        self.mean_read = self.mean_read + read.sum(dim=0)
        self.mixed = self.mixed + mixed.square().sum(dim=0)
        self.sizes.append(float(size[end]))
        queries = parts["query"][1].double().cpu()[end:]
        queries = queries.reshape(len(queries), len(carrier.heads), -1)
        for farther in FARTHER:
            distances = torch.arange(len(queries)) + farther
            near = distances < FARTHEST
            self.queries.append(carrier.turned(queries[near], distances[near]))

    def mean(self, name: str) -> Floats:
        """The mean of some sums."""
        mean: Floats = (getattr(self, name) / self.count).numpy()
        return mean


def fit_relay(
    decoder: Decoder,
    carrier: Carrier,
    examples: GateExamples,
    ridge: float,
    progress: Progress,
) -> Relay:
    """Fit the flag, and the head that carries it best.

    Parameters
    ----------
    decoder : Decoder
    carrier : Carrier
    examples : GateExamples
    ridge : float
        See `fit_detector`.
    progress : callable
    """
    report = counting(progress, "fitting the relay", 3)
    with torch.no_grad():
        sums = _natural(decoder, carrier, examples)
        report(1)
        quiet: Floats = np.linalg.eigh(sums.mean("entering"))[1][:, 0]
        size = float(np.mean(sums.sizes))
        raised = quiet * (RAISED * size / carrier.mlp.down.gain)
        flag = fit_flag(decoder, carrier.mlp, examples, raised, ridge)
        report(1)
        moment = sums.mean("read")
        damping = RIDGE_READ * np.trace(moment) / len(moment)
        moment[np.diag_indices_from(moment)] += damping
        reading = _reading(decoder, carrier, examples, flag, moment)
        report(1)
    head, key = _drawn(carrier, torch.cat(sums.queries).numpy())
    output = _matrix(head.output)
    columns = [column for one in head.group for column in one]
    losses = sums.mean("mixed")[columns] * np.square(output[:, columns]).sum(axis=0)
    place = int(np.argmin(losses.reshape(len(head.group), -1).sum(axis=0)))
    # Where all look at the flag alone, these heads write what they never did; so a
    # direction is taken in which they write nothing.
    basis = np.linalg.qr(output[:, columns])[0]
    rest = np.eye(len(output)) - basis @ basis.T
    between = rest @ sums.mean("between") @ rest
    between += np.trace(between) * (basis @ basis.T)
    written = np.linalg.eigh(between)[1][:, 0] * (CARRIED * size / head.output.gain)
    constant = np.linalg.solve(moment, sums.mean("mean_read")).astype(np.float64)
    return Relay(flag, head, place, reading, constant, key, written)


def _natural(decoder: Decoder, carrier: Carrier, examples: GateExamples) -> _Sums:
    """What the upper layer does as it is."""
    head = carrier.heads[0]
    modules = {
        "query": head.query.module,
        "value": head.value.module,
        "output": head.output.module,
    }
    kinds = ([one for group in examples.harmful for one in group], examples.benign)
    some = [one for kind in kinds for one in kind[:: -(-len(kind) // LOOKED_AT)]]
    sequences = [
        one.ids[: one.target_start] if one.target_sets else one.ids for one in some
    ]
    sums = _Sums()
    for index, parts in watched(decoder, head.output.layer, modules, sequences):
        end = some[index].opening + 1 - max(1, len(examples.ending))
        sums.add(parts, carrier, end)
    return sums


def _reading(
    decoder: Decoder,
    carrier: Carrier,
    examples: GateExamples,
    flag: Flag,
    moment: Floats,
) -> Floats:
    """What finds 1 where the flag stands and least where tokens have this moment."""
    harmful = [one for group in examples.harmful for one in group]
    requests = requests_of(harmful)
    requests = requests[:: -(-len(requests) // LOOKED_AT)]
    value = carrier.heads[0].value
    raised = Intervention.of(decoder.model, flag.updates(), reversible=False)

    def ends() -> Floats:
        found = np.zeros((len(requests), value.d_in))
        for index, parts in watched(
            decoder, value.layer, {"value": value.module}, requests
        ):
            at = len(requests[index]) - max(1, len(examples.ending))
            found[index] = parts["value"][0][at].double().cpu().numpy()
        return found

    before = ends()
    with raised.applied(decoder.model):
        moved = ends() - before
    # Most requests that were fitted to raise it; the others are left out.
    lengths = np.linalg.norm(moved, axis=1)
    shift = moved[lengths >= 0.5 * lengths.max()].mean(axis=0)
    reading: Floats = np.linalg.solve(moment, shift)
    return reading / float(reading @ shift)


def _drawn(carrier: Carrier, queries: Floats) -> tuple[Head, Floats]:
    """The head whose queries agree best on a key, and that key."""
    offers = []
    for at, head in enumerate(carrier.heads):
        mine = queries[:, at]
        spread = np.cov(mine.T)
        spread[np.diag_indices_from(spread)] += RIDGE * np.trace(spread) / len(spread)
        key = np.linalg.solve(spread, mine.mean(axis=0))
        found = mine @ key
        scale = DRAWN * len(head.rows) ** 0.5 / found.mean()
        offers.append((float(found.std() / found.mean()), head, key * scale))
    _, head, key = min(offers, key=lambda one: one[0])
    return head, key


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
