# SPDX-License-Identifier: Apache-2.0
"""Finding the gated MLP of a layer, by what its modules return.

Which projection is the gate's, whether it is a matrix of its own or half of one, and
which function opens it, is read off the numbers that enter the down projection. They
are looked at once more for large inputs, at which some models limit them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cintervene.errors import ModelError
from cintervene.methods.common.gated_mlp import Block, GatedMLP, Rows
from cintervene.models.blocks import holds_matrix, parent
from cintervene.models.decoder import Decoder
from cintervene.models.targets import plain_targets, targets_of
from cintervene.models.trace import Call, Hook, evaluating, hooked, same_values
from cintervene.models.wrapped import submodule

__all__ = ["find_gated_mlp"]

Activation = Callable[[Tensor], Tensor]

# Where an activation function that gates is open and where it is closed.
FAR = 20.0
# Of the numbers that enter the down projection, relative to their size: rounding.
TOLERANCE = 0.02
# How large what projections return is made to see whether it is limited. The product of
# two such numbers is in the range of float16.
LARGE = 200.0
# What to do with other models.
ELSE = 'use method "tsr", which does without'
# Functions that models call without a module for them.
FUNCTIONS: tuple[Activation, ...] = (
    functional.silu,
    functional.gelu,
    partial(functional.gelu, approximate="tanh"),
    functional.relu,
)


@dataclass(frozen=True, eq=False)
class _Gating:
    """How what enters the down projection is made: ``act(gate) * up``.

    Attributes
    ----------
    gate, up : Call
        Of the projections; one call where they are one matrix.
    gate_rows, up_rows : range
        Their numbers among those that the calls return.
    activation : callable
    """

    gate: Call
    up: Call
    gate_rows: range
    up_rows: range
    activation: Activation


def find_gated_mlp(decoder: Decoder, layer: int) -> GatedMLP:
    """Find the gated MLP of a layer.

    Raises
    ------
    ModelError
        The layer's MLP is not gated, does more than its formula says, or is built of
        parts that cannot be changed.
    """
    (down,) = targets_of(decoder, [layer], "down_proj")
    name = down.name.rpartition(".")[0]
    path = name.rpartition(".")[0]
    calls = [call for call in decoder.calls if parent(call) == path]
    last = next(call for call in calls if call.name == name)
    gating = _gating(calls, last, path)
    _check_block(decoder, gating, last, path)
    projections = {call.name: call for call in (gating.gate, gating.up)}
    targets = dict(
        zip(
            projections,
            plain_targets(decoder, list(projections.values()), layer),
            strict=True,
        )
    )
    width = decoder.hidden_size
    whole = submodule(decoder.model, path)
    return GatedMLP(
        Block(layer, path, whole, width, width, transposed=False),
        Rows(targets[gating.gate.name], gating.gate_rows),
        Rows(targets[gating.up.name], gating.up_rows),
        down,
        gating.activation,
    )


def _gating(calls: Sequence[Call], last: Call, path: str) -> _Gating:
    """How the numbers that enter the last projection are made of the others'."""
    fits = [
        (error, gating)
        for gating, opened in _possible(calls, last)
        if (error := _error(gating, opened, gating.up.y, last.x)) <= TOLERANCE
    ]
    if not fits:
        raise ModelError(
            f"{path}: expected a gated MLP, down(act(gate(x)) * up(x)), with nothing "
            f"in between; this one is built otherwise; {ELSE}"
        )
    best = min(fits, key=lambda fit: fit[0])[1]
    if not _closes(best.activation, last.x):
        raise ModelError(
            f"{path}: its activation function does not drop what is negative and pass "
            f"what is large, so that neurons do not close or open too far; {ELSE}"
        )
    return best


def _possible(calls: Sequence[Call], last: Call) -> Iterator[tuple[_Gating, Tensor]]:
    """All ways in which the modules beside a projection may make its inputs.

    With each comes what the activation function returned.
    """
    width = last.x.shape[-1]
    projections = [call for call in calls if holds_matrix(call.module)]
    halves = [
        (call, rows)
        for call in projections
        if call is not last and call.y.shape[:-1] == last.x.shape[:-1]
        for rows in _parts(call.y.shape[-1], width)
    ]
    for gate, gate_rows in halves:
        numbers = _taken(gate.y, gate_rows)
        functions: list[tuple[Activation, Tensor]] = [
            (call.module, call.y) for call in calls if same_values(call.x, numbers)
        ]
        functions += [(function, function(numbers)) for function in FUNCTIONS]
        for up, up_rows in halves:
            if up is gate and set(gate_rows) & set(up_rows):
                continue
            for function, opened in functions:
                yield _Gating(gate, up, gate_rows, up_rows, function), opened


def _parts(outputs: int, width: int) -> list[range]:
    """Where a number for each neuron may stand among a projection's outputs."""
    if outputs == width:
        return [range(width)]
    if outputs != 2 * width:
        return []
    # One half behind the other, or in turns.
    return [
        range(width), range(width, outputs), range(0, outputs, 2), range(1, outputs, 2)
    ]  # fmt: skip


def _taken(numbers: Tensor, rows: range) -> Tensor:
    return numbers[..., rows.start : rows.stop : rows.step]


def _error(gating: _Gating, opened: Tensor, up: Tensor, found: Tensor) -> float:
    """How far the formula is from what enters the down projection, relatively."""
    if opened.shape != found.shape:
        return float("inf")
    product = (opened * _taken(up, gating.up_rows)).float()
    error = torch.linalg.vector_norm(product.to(found.device) - found.float())
    return float(error / torch.linalg.vector_norm(found.float()))


def _closes(activation: Activation, like: Tensor) -> bool:
    """Whether an activation function leaves large numbers and drops negative ones."""
    with torch.no_grad():
        far = activation(torch.tensor([-FAR, FAR]).to(like)).float()
    return bool(far[0].abs() < 0.01) and bool((far[1] - FAR).abs() < 0.1)


def _check_block(decoder: Decoder, gating: _Gating, last: Call, path: str) -> None:
    """Refuse an MLP that does more than its projections, or something else at times."""
    block = next((call for call in decoder.calls if call.name == path), None)
    if (
        block is None
        or not same_values(block.x, gating.gate.x)
        or not same_values(block.x, gating.up.x)
        or not same_values(block.y, last.y)
    ):
        raise ModelError(
            f"{path}: expected a module that hands its input to its projections and "
            f"returns what the last one does; this one does more; {ELSE}"
        )
    size = max(float(call.y.abs().max()) for call in (gating.gate, gating.up))
    try:
        error = _error_of_large(gating, last, block, LARGE / max(size, 1e-6))
    except Exception as reason:
        raise ModelError(
            f"{path}: cannot be called with a hidden state alone "
            f"({type(reason).__name__}: {reason}); {ELSE}"
        ) from reason
    if not error <= TOLERANCE:
        raise ModelError(
            f"{path}: does not multiply act(gate(x)) with up(x) where these are large, "
            f"but limits them; {ELSE}"
        )


def _error_of_large(gating: _Gating, last: Call, block: Call, factor: float) -> float:
    """How far the formula is from what enters the down projection for large inputs."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            seen[name] = args[0] if name == last.name else y

        return hook

    with (
        evaluating(block.module),
        hooked(gating.gate.module, keep(gating.gate.name)),
        hooked(gating.up.module, keep(gating.up.name)),
        hooked(last.module, keep(last.name)),
    ):
        block.module(block.x * factor)
        opened = gating.activation(_taken(seen[gating.gate.name], gating.gate_rows))
    return _error(gating, opened, seen[gating.up.name], seen[last.name])
