# SPDX-License-Identifier: Apache-2.0
"""Which weight matrices an intervention changes: those that end a layer's blocks.

The projections are found by what they do. A probe of three tokens tells which modules
form the chain of decoder layers, and `cintervene.models.blocks` which projections end a
layer's blocks. Widths and result must be those of a plain matrix. What does not fit is
refused with a reason that names the module.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from transformers.pytorch_utils import Conv1D

from cintervene.errors import ArgumentError, ModelError
from cintervene.models.blocks import BlockCalls, is_norm_of, stacked_parameters
from cintervene.models.decoder import Decoder, find_decoder, resolve_layers
from cintervene.models.offload import device_of, parameter_identity, parameter_value
from cintervene.models.quantised import (
    QUANTISED_TOLERANCE,
    dequantised,
    is_plain,
    is_quantised,
)
from cintervene.models.trace import Call
from cintervene.models.weights import FLOAT_DTYPES, dtype_name
from cintervene.models.wrapped import named_modules
from cintervene.utils.literals import Matrix

# Of a probe's result relative to its size: rounding.
TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Target:
    """One projection onto the residual stream that can be changed.

    Attributes
    ----------
    layer : int
        Index of the decoder layer.
    name : str
        Path of the weight parameter in the model.
    module : nn.Module
        The projection: an `nn.Linear`, a GPT-2 `Conv1D` or a quantised linear module.
    d_in, d_out : int
        Widths of its input and output; `d_out` is the hidden size.
    transposed : bool
        Whether the weight is stored as (d_in, d_out), as in `Conv1D`.
    after : nn.Module or None
        The norm between the projection's output and the residual stream (Gemma).
    matrix : {"down_proj", "o_proj"}
    compute_dtype : torch.dtype or None
        Where the weight is quantised (bitsandbytes, GPTQ, AWQ), the type of what the
        module takes and returns. Such a weight cannot be changed; adapters can change
        what the module returns.
    gain : float
        What its output is multiplied with where it is added to the residual stream.
    """

    layer: int
    name: str
    module: nn.Module
    d_in: int
    d_out: int
    transposed: bool
    after: nn.Module | None = None
    matrix: Matrix = "down_proj"
    compute_dtype: torch.dtype | None = None
    gain: float = 1.0

    @property
    def quantised(self) -> bool:
        """Whether the weight is stored as codes."""
        return self.compute_dtype is not None

    @property
    def ends_layer(self) -> bool:
        """Whether no part of the layer reads its output; attention's the MLP does."""
        return self.matrix == "down_proj"

    @property
    def weight(self) -> Tensor:
        """The weight parameter, as the model stores it.

        Where it is offloaded, what accelerate holds of it or reads anew each time;
        where it is quantised, the (d_out, d_in) matrix that it stands for, anew each
        time.
        """
        if self.compute_dtype is not None:
            return dequantised(self.module, self.d_in, self.compute_dtype)
        return parameter_value(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the weight; of the dequantised one where it is quantised."""
        if self.compute_dtype is not None:
            return self.compute_dtype
        dtype = self.module.weight.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return device_of(self.module)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `find_targets` would return for each layer, or why it would refuse.

    Attributes
    ----------
    model : str
        The model's class.
    n_layers : int
    targets : list of Target
    refused : dict of int to str
    experts : int
        Parameters in stacks of matrices, as experts are, which are left alone.
    experts_share : float
        Their share of the model's parameters.
    """

    model: str
    n_layers: int
    targets: list[Target]
    refused: dict[int, str]
    experts: int = 0
    experts_share: float = 0.0

    @property
    def note(self) -> str:
        """What is left alone where there are experts, else nothing."""
        if not self.experts:
            return ""
        share = f"{self.experts_share:.1%} of the model"
        return f"stacks of experts are left alone: {self.experts:,} parameters, {share}"

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.n_layers} decoder layers"]
        about = [(target.layer, _describe(target)) for target in self.targets]
        about += [
            (layer, f"  {layer:3d}  refused: {reason}")
            for layer, reason in self.refused.items()
        ]
        lines += [line for _, line in sorted(about, key=lambda one: one[0])]
        parameters = sum(target.d_in * target.d_out for target in self.targets)
        lines.append(f"{len(self.targets)} matrices, {parameters:,} parameters")
        return "\n".join([*lines, *filter(None, [self.note])])


def find_targets(
    model: nn.Module,
    layers: Iterable[int] | None = None,
    matrix: Matrix = "down_proj",
) -> list[Target]:
    """Find one projection in each of the given decoder layers.

    Parameters
    ----------
    model : nn.Module
        A decoder-only language model of transformers, on a real device.
    layers : iterable of int, optional
        Layer indices, negative ones from the end; all layers without it.
    matrix : {"down_proj", "o_proj"}
        The MLP's down projection, or the attention's output projection.

    Returns
    -------
    list of Target
        In the order of the layers, each layer once.

    Raises
    ------
    ModelError
        A wanted layer has no plain, unique projection of the kind.
    ArgumentError
        A layer index is out of range, there are none, or the matrix is unknown.
    """
    check_matrix(matrix)
    return targets_of(find_decoder(model), layers, matrix)


def targets_of(
    decoder: Decoder, layers: Iterable[int] | None, matrix: Matrix
) -> list[Target]:
    """`find_targets` in a model whose decoder is known."""
    explanation = explanation_of(decoder, layers, matrix)
    for layer, reason in explanation.refused.items():
        raise ModelError(f"layer {layer} cannot be changed: {reason}")
    return explanation.targets


def explanation_of(
    decoder: Decoder, layers: Iterable[int] | None, matrix: Matrix
) -> Explanation:
    """What can be changed in some layers of a decoder, and why not in others."""
    check_matrix(matrix)
    shared = _shared_names(decoder.model)
    targets, refused = [], {}
    for layer in resolve_layers(layers, decoder.n_layers):
        try:
            targets.append(_projection(decoder, layer, shared, matrix))
        except ModelError as error:
            refused[layer] = str(error)
    experts = experts_of(decoder.model)
    return Explanation(
        type(decoder.model).__name__, decoder.n_layers, targets, refused,
        int(experts.get("parameters", 0)), experts.get("share", 0.0),
    )  # fmt: skip


def experts_of(model: nn.Module) -> dict[str, float]:
    """How many parameters are stacked, as experts are, and their share; {} for none."""
    stacked = sum(one.numel() for _, one in stacked_parameters(model))
    if not stacked:
        return {}
    total = sum(one.numel() for one in model.parameters())
    return {"parameters": stacked, "share": stacked / total}


def check_matrix(matrix: str) -> None:
    """Raise ArgumentError unless the name is one of `Matrix`."""
    if matrix not in get_args(Matrix):
        expected = " or ".join(map(repr, get_args(Matrix)))
        raise ArgumentError(f"matrix: got {matrix!r}; expected {expected}")


def _describe(target: Target) -> str:
    shape = f"{target.d_out} x {target.d_in}" + (
        ", transposed" if target.transposed else ""
    )
    dtype = dtype_name(target.dtype)
    if target.quantised:
        dtype = f"quantised ({type(target.module).__name__}), by an adapter only"
    return f"  {target.layer:3d}  {target.name}  {shape}  {dtype}"


def _shared_names(model: nn.Module) -> dict[Hashable, list[str]]:
    """Paths under which each parameter is reachable."""
    names: dict[Hashable, list[str]] = {}
    for path, module in named_modules(model, remove_duplicate=False):
        for name, _ in module.named_parameters(recurse=False, remove_duplicate=False):
            names.setdefault(parameter_identity(module, name), []).append(
                _path(path, name)
            )
    return names


def _path(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _projection(
    decoder: Decoder,
    layer: int,
    shared: dict[Hashable, list[str]],
    matrix: Matrix,
) -> Target:
    calls = BlockCalls.of(decoder, layer)
    down = matrix == "down_proj"
    last = calls.down_projection() if down else calls.attention_output()
    _refuse_opaque(last)
    after = _norm_after(last, calls.all)
    target = _unshared(last, layer, matrix, shared, after)
    return target if after is not None else replace(target, gain=calls.gain(last))


def plain_targets(decoder: Decoder, calls: Sequence[Call], layer: int) -> list[Target]:
    """What modules that were called multiply with, as targets of their own.

    Raises
    ------
    ModelError
        One of them has no plain weight, or shares it.
    """
    shared = _shared_names(decoder.model)
    for call in calls:
        _refuse_opaque(call)
    return [_unshared(call, layer, "down_proj", shared, None) for call in calls]


def _unshared(
    call: Call,
    layer: int,
    matrix: Matrix,
    shared: dict[Hashable, list[str]],
    after: nn.Module | None,
) -> Target:
    d_in, d_out = call.x.shape[-1], call.y.shape[-1]
    name = f"{call.name}.weight"
    quantised = is_quantised(call.module)
    names = [] if quantised else shared[parameter_identity(call.module)]
    others = [other for other in names if other != name]
    if others:
        raise ModelError(f"{name} is shared with {', '.join(others)}")
    transposed = isinstance(call.module, Conv1D)
    return Target(
        layer, name, call.module, d_in, d_out, transposed, after, matrix,
        call.x.dtype if quantised else None,
    )  # fmt: skip


def _refuse_opaque(call: Call) -> None:
    """Refuse anything whose result is not that of a plain, visible weight matrix."""
    module, kind = call.module, type(call.module).__name__
    if is_parametrized(module):
        raise ModelError(
            f"{call.name} computes its weight (torch.nn.utils.parametrize); make it "
            "a plain one with remove_parametrizations"
        )
    if is_quantised(module) and call.x.dtype in FLOAT_DTYPES:
        matrix = dequantised(module, call.x.shape[-1], call.x.dtype)
        return _refuse_altered_result(call, matrix, QUANTISED_TOLERANCE)
    weight = getattr(module, "weight", None)
    if not isinstance(module, (nn.Linear, Conv1D)) or not isinstance(weight, Tensor):
        raise ModelError(
            f"{call.name} is a {kind}, expected nn.Linear, Conv1D or a linear module "
            "with quantised weights; load the model in its original precision"
        )
    shape = weight.shape if not isinstance(module, Conv1D) else weight.T.shape
    if not is_plain(weight) or shape != (call.y.shape[-1], call.x.shape[-1]):
        raise ModelError(
            f"{call.name}.weight is a {type(weight).__name__} of {weight.dtype} and "
            f"shape {tuple(weight.shape)}: quantised or computed weights "
            "of this kind cannot be changed; load the model in its original precision"
        )
    matrix = parameter_value(module)
    if isinstance(module, Conv1D):
        matrix = matrix.T
    return _refuse_altered_result(call, matrix, TOLERANCE)


def _refuse_altered_result(call: Call, matrix: Tensor, tolerance: float) -> None:
    place = call.x.device
    expected = call.x.double() @ matrix.detach().to(place).double().T
    bias = getattr(call.module, "bias", None)
    if isinstance(bias, Tensor):
        bias = parameter_value(call.module, "bias").detach()
        expected = expected + bias.to(place).double()
    error = torch.linalg.vector_norm(call.y.double() - expected)
    if not error <= tolerance * torch.linalg.vector_norm(expected):
        raise ModelError(
            f"{call.name} does not return its input times its weight (hooks, an "
            "adapter or a wrapper change the result, or a value is not finite); remove "
            "what wraps it"
        )


def _norm_after(last: Call, calls: Sequence[Call]) -> nn.Module | None:
    """Return the norm that the projection's output passes before the residual."""
    start = next(i for i, call in enumerate(calls) if call is last)
    norms = (c.module for c in calls[start + 1 :] if is_norm_of(c, last.y))
    return next(norms, None)
