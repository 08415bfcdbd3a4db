# SPDX-License-Identifier: Apache-2.0
"""The blocks of a decoder layer, told apart by what they do with tokens.

An MLP makes of each token what it makes of it alone; attention, convolutions and
recurrences mix tokens. Experts are stacks of matrices or many modules alike, of which
each token sees a few: they are left alone, and what stands beside them is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from cintervene.errors import ModelError
from cintervene.models.decoder import Decoder, text_config
from cintervene.models.trace import Call, evaluating, first_tensor, same_values
from cintervene.models.wrapped import named_modules, submodule

__all__ = [
    "BlockCalls",
    "holds_matrix",
    "is_norm_of",
    "parent",
    "stacked_parameters",
]

# Of a block's result relative to its size: rounding of sixteen-bit types.
TOLERANCE = 0.02
ADAPTER_MARKS = ("lora_A", "lora_B", "base_layer")


@dataclass(frozen=True, eq=False)
class BlockCalls:
    """What is called in one layer.

    Attributes
    ----------
    decoder : Decoder
    layer : nn.Module
    prefix : str
        Path of the layer, with a dot.
    all : list of Call
        As they finished.
    projections : list of Call
        Of modules that hold one matrix.
    """

    decoder: Decoder
    layer: nn.Module
    prefix: str
    all: list[Call]
    projections: list[Call]

    @classmethod
    def of(cls, decoder: Decoder, layer: int) -> BlockCalls:
        """Those of a layer.

        Raises
        ------
        ModelError
            It calls no module that holds a matrix, or an adapter's.
        """
        prefix = f"{decoder.layers_name}.{layer}."
        module = decoder.layers[layer]
        calls = [call for call in decoder.calls if call.name.startswith(prefix)]
        projections = [call for call in calls if holds_matrix(call.module)]
        if not projections:
            raise ModelError(f"{prefix[:-1]} calls no module that holds a matrix")
        for call in projections:
            if any(mark in call.name for mark in ADAPTER_MARKS):
                raise ModelError(
                    f"{call.name} belongs to an adapter; merge the adapter first"
                )
        return cls(decoder, module, prefix, calls, projections)

    def down_projection(self) -> Call:
        """The last projection of the MLP, or of a layer that is one block alone.

        Raises
        ------
        ModelError
            There is none, or it is not told from others.
        """
        for call in reversed(self.projections):
            if self._ends_mlp(call):
                return call
        last = self.projections[-1]
        if self._is_layer(last):
            return last
        raise ModelError(self._why_no_mlp(last) + self._instead())

    def attention_output(self) -> Call:
        """The projection whose result the block beside the MLP returns.

        Raises
        ------
        ModelError
            There is none.
        """
        mlps = {parent(call) for call in self.projections if self._ends_mlp(call)}
        beside = [call for call in self.projections if parent(call) not in mlps]
        for call in reversed(beside):
            if self._ends_block(call):
                return call
        if not beside:
            raise ModelError(f"{self.prefix[:-1]} has no projection outside its MLP")
        raise ModelError(
            f"{beside[-1].name}, the last projection outside the MLP, does not turn "
            "what projections beside it make of the hidden state into what its block "
            "returns: it is not recognised as an attention's output projection"
        )

    def gain(self, last: Call) -> float:
        """What a projection's output is multiplied with where it is added (Granite).

        1 where that cannot be read off the trace: where two blocks are added at once,
        or a norm stands between.
        """
        y = last.y.double()
        norms = [call.x for call in self.all if _scales(call)]
        states = [*self._ends(), *norms]
        states = [x.double().to(y.device) for x in states if x.shape == last.y.shape]
        for before, after in permutations(states, 2):
            added = after - before
            gain = float((added * y).sum() / y.square().sum())
            rounding = torch.finfo(last.y.dtype).eps * after.norm()
            error = (added - gain * y).norm()
            if gain > 0 and error <= TOLERANCE * added.norm() + rounding:
                return 1.0 if abs(gain - 1.0) <= TOLERANCE else gain
        return 1.0

    def _ends(self) -> tuple[Tensor, Tensor]:
        """What enters the layer, and what leaves it."""
        whole = next(call for call in self.decoder.calls if call.module is self.layer)
        return whole.x, whole.y

    def _ends_mlp(self, last: Call) -> bool:
        d_in, width = last.x.shape[-1], self.decoder.hidden_size
        inner = text_config(self.decoder.model).intermediate_size
        widens = any(
            parent(call) == parent(last)
            and call is not last
            and call.x.shape[-1] == width
            and call.y.shape[-1] in (d_in, 2 * d_in)
            for call in self._before(last)
        )
        at_end = last is self.projections[-1] and not self._has_experts(last)
        known = inner == d_in or (inner is None and at_end)
        return (
            last.y.shape[-1] == width
            and widens
            and self._once(last)
            and not self._twins(last)
            and ((known and at_end) or self._is_tokenwise(last))
        )

    def _ends_block(self, last: Call) -> bool:
        """Whether it turns what its block makes into what that returns."""
        block = self._block(last)
        width = self.decoder.hidden_size
        reads = any(
            call.name.startswith(f"{parent(last)}.") and call.x.shape[-1] == width
            for call in self._before(last)
        )
        return (
            block is not None
            and reads
            and last.y.shape[-1] == width
            and self._once(last)
            and not self._twins(last)
            and same_values(block.y, last.y)
            and not self._is_tokenwise(last)
        )

    def _is_layer(self, last: Call) -> bool:
        """Whether its result is all that the layer adds to the hidden state."""
        before, after = self._ends()
        y = last.y.double()
        added = (after.to(y.device) - before.to(y.device)).double()
        if added.shape != y.shape or not self._once(last) or not bool(y.any()):
            return False
        scale = (added * y).sum() / y.square().sum()
        error = (added - scale * y).norm()
        return bool(scale > 0 and error <= TOLERANCE * added.norm())

    def _is_tokenwise(self, last: Call) -> bool:
        """Whether the block of a projection makes nothing of a token's neighbours."""
        block = self._block(last)
        if block is None or block.module is self.layer or block.x.ndim < 2:
            return False
        x = block.x.clone()
        rows = x.view(-1, x.shape[-1])
        rows[0] = rows[-1]
        try:
            with evaluating(block.module):
                y = first_tensor(block.module(x))
        except Exception:
            # It has to be told more than a hidden state: where the token stands.
            return False
        if y is None or y.shape != block.y.shape:
            return False
        before, after = (z.reshape(-1, z.shape[-1])[1:].double() for z in (block.y, y))
        return bool((after - before).norm() <= TOLERANCE * before.norm())

    def _block(self, last: Call) -> Call | None:
        path = parent(last)
        return next((call for call in self.all if call.name == path), None)

    def _before(self, last: Call) -> Iterator[Call]:
        for call in self.projections:
            if call is last:
                return
            yield call

    def _once(self, last: Call) -> bool:
        return sum(call.module is last.module for call in self.projections) == 1

    def _twins(self, last: Call) -> list[str]:
        """Paths of the same projection in other modules of the kind: experts."""
        block_path, leaf = self._path(last), last.name.rpartition(".")[2]
        if not block_path:
            return []
        block = submodule(self.layer, block_path)
        return [
            f"{self.prefix}{name}.{leaf}"
            for name, module in named_modules(self.layer)
            if module is not block and type(module) is type(block)
        ]

    def _path(self, call: Call) -> str:
        """Of the block that a module is in, within the layer."""
        return call.name.removeprefix(self.prefix).rpartition(".")[0]

    def _has_experts(self, last: Call) -> bool:
        stacked = any(True for _ in stacked_parameters(self.layer))
        return stacked or bool(self._twins(last))

    def _why_no_mlp(self, last: Call) -> str:
        stack = next(stacked_parameters(self.layer), None)
        twins = self._twins(last)
        where = ""
        if stack is not None:
            name, parameter = stack
            where = f"{self.prefix}{name} stacks {len(parameter)} matrices"
        elif twins:
            kind = type(submodule(self.layer, self._path(last))).__name__
            where = f"{last.name} is in one of {len(twins) + 1} {kind} of the layer"
        if where:
            return (
                f"{where}: a mixture of experts, which are left alone, with no other "
                "MLP beside them"
            )
        if not self._once(last):
            return f"{last.name} is called more than once in a forward pass"
        d_in, d_out = last.x.shape[-1], last.y.shape[-1]
        width = self.decoder.hidden_size
        if d_out != width:
            return (
                f"{last.name}, the last projection of the layer, has {d_out} outputs, "
                f"expected the hidden size {width}"
            )
        inner = text_config(self.decoder.model).intermediate_size
        return (
            f"{last.name}, the last projection of the layer, reads {d_in} values that "
            "no projection beside it makes from the hidden state, or that are not the "
            f"intermediate size {inner}: it is not recognised as an MLP's down "
            "projection"
        )

    def _instead(self) -> str:
        """What else can be changed in the layer, if it can."""
        try:
            self.attention_output()
        except ModelError:
            return ""
        return '; change the attention\'s output projection, matrix="o_proj"'


def parent(call: Call) -> str:
    """Path of the module that a called one is a part of."""
    return call.name.rpartition(".")[0]


def is_norm_of(call: Call, x: Tensor) -> bool:
    """Tell whether a call is that of a norm of `x`: by its shapes, and its weight."""
    weight = getattr(call.module, "weight", None)
    if isinstance(weight, Tensor):
        plausible = weight.shape == x.shape[-1:]
    else:
        holds = any(True for _ in call.module.parameters())
        plausible = not holds and not same_values(call.y, call.x)
    return plausible and same_values(call.x, x)


def _scales(call: Call) -> bool:
    """Whether a module holds a vector as wide as what it reads, as norms do."""
    weight = getattr(call.module, "weight", None)
    return isinstance(weight, Tensor) and weight.shape == call.x.shape[-1:]


def stacked_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that stack several matrices: those of experts."""
    for name, part in module.named_modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            continue
        for key, parameter in part.named_parameters(recurse=False):
            stacked = parameter.ndim >= 3 and min(parameter.shape) > 1
            if stacked and not _is_block_diagonal(part, parameter):
                yield (f"{name}.{key}" if name else key), parameter


def _is_block_diagonal(part: nn.Module, stack: Tensor) -> bool:
    """Whether the matrices are blocks of one, as gates of recurrences have it.

    They are square, and together as wide as a vector of their module.
    """
    count, rows, columns = stack.shape[-3:]
    vectors = (one for one in part.parameters(recurse=False) if one.ndim == 1)
    return rows == columns and any(one.numel() == count * rows for one in vectors)


def holds_matrix(module: nn.Module) -> bool:
    """Tell whether a module has a matrix of its own and no modules within."""
    if is_parametrized(module):
        return True
    if any(True for _ in module.children()):
        return False
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    stacked = any(True for _ in stacked_parameters(module))
    return not stacked and any(tensor.ndim >= 2 for tensor in tensors)
