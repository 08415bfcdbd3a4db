# SPDX-License-Identifier: Apache-2.0
"""Which weight matrices an intervention changes: those that end a layer's blocks.

The projections are found by what they do. A probe of three tokens tells which modules
form the chain of decoder layers; in each layer the MLP's down projection is the last
projection that is called, and the attention's output projection the last one outside
the MLP. Widths and result must be those of a plain matrix. What does not fit is refused
with a reason that names the module.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from transformers.pytorch_utils import Conv1D

from cintervene.errors import ArgumentError, ModelError
from cintervene.models.decoder import Decoder, find_decoder, resolve_layers, text_config
from cintervene.models.offload import device_of, parameter_identity, parameter_value
from cintervene.models.quantised import (
    QUANTISED_TOLERANCE,
    dequantised,
    is_plain,
    is_quantised,
)
from cintervene.models.trace import Call
from cintervene.models.weights import FLOAT_DTYPES
from cintervene.utils.literals import Matrix

ADAPTER_MARKS = ("lora_A", "lora_B", "base_layer")
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
    """What `find_targets` would return for each layer, or why it would refuse."""

    model: str
    n_layers: int
    targets: list[Target]
    refused: dict[int, str]

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.n_layers} decoder layers"]
        by_layer = {target.layer: target for target in self.targets}
        for layer in sorted({*by_layer, *self.refused}):
            if layer in by_layer:
                lines.append(_describe(by_layer[layer]))
            else:
                lines.append(f"  {layer:3d}  refused: {self.refused[layer]}")
        parameters = sum(target.d_in * target.d_out for target in self.targets)
        lines.append(f"{len(self.targets)} matrices, {parameters:,} parameters")
        return "\n".join(lines)


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


def explain(
    model: nn.Module,
    layers: Iterable[int] | None = None,
    matrix: Matrix = "down_proj",
) -> Explanation:
    """Say what would be changed in `model`, layer by layer, without changing anything.

    The parameters are those of `find_targets`.
    """
    check_matrix(matrix)
    return explanation_of(find_decoder(model), layers, matrix)


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
    """`explain` for a model whose decoder is known."""
    check_matrix(matrix)
    shared = _shared_names(decoder.model)
    targets, refused = [], {}
    for layer in resolve_layers(layers, decoder.n_layers):
        try:
            targets.append(_projection(decoder, layer, shared, matrix))
        except ModelError as error:
            refused[layer] = str(error)
    name = type(decoder.model).__name__
    return Explanation(name, decoder.n_layers, targets, refused)


def check_matrix(matrix: str) -> None:
    """Raise ArgumentError unless the name is one of `Matrix`."""
    if matrix not in get_args(Matrix):
        expected = " or ".join(map(repr, get_args(Matrix)))
        raise ArgumentError(f"matrix: got {matrix!r}; expected {expected}")


def _describe(target: Target) -> str:
    shape = f"{target.d_out} x {target.d_in}" + (
        ", transposed" if target.transposed else ""
    )
    dtype = str(target.dtype).removeprefix("torch.")
    if target.quantised:
        dtype = f"quantised ({type(target.module).__name__}), by an adapter only"
    return f"  {target.layer:3d}  {target.name}  {shape}  {dtype}"


def _shared_names(model: nn.Module) -> dict[Hashable, list[str]]:
    """Paths under which each parameter is reachable."""
    names: dict[Hashable, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
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
    prefix = f"{decoder.layers_name}.{layer}."
    calls = [call for call in decoder.calls if call.name.startswith(prefix)]
    _refuse_stacked_experts(decoder.layers[layer], prefix)
    projections = [call for call in calls if holds_matrix(call.module)]
    if not projections:
        raise ModelError(f"{prefix[:-1]} calls no module that holds a matrix")
    last = projections[-1]
    if matrix == "o_proj":
        # Only beside a known MLP is it clear that the rest is attention.
        _refuse_misplaced(decoder, last, projections)
        last = _attention_output(decoder, last, projections, calls, prefix)
    _refuse_opaque(last)
    if matrix == "down_proj":
        _refuse_misplaced(decoder, last, projections)
    _refuse_twins(decoder.layers[layer], prefix, last)
    return _unshared(last, layer, matrix, shared, _norm_after(last, calls))


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


def _attention_output(
    decoder: Decoder,
    down: Call,
    projections: Sequence[Call],
    calls: Sequence[Call],
    prefix: str,
) -> Call:
    """The projection whose result is what the block beside the MLP returns."""
    others = [call for call in projections if parent(call) != parent(down)]
    if not others:
        raise ModelError(f"{prefix[:-1]} has no projection outside its MLP")
    last = others[-1]
    if sum(call.module is last.module for call in projections) > 1:
        raise ModelError(f"{last.name} is called more than once in a forward pass")
    beside = [call for call in others[:-1] if parent(call) == parent(last)]
    block = next((call for call in calls if call.name == parent(last)), None)
    if (
        last.y.shape[-1] != decoder.hidden_size
        or not any(call.x.shape[-1] == decoder.hidden_size for call in beside)
        or block is None
        or not torch.equal(block.y, last.y)
    ):
        raise ModelError(
            f"{last.name}, the last projection outside the MLP, does not turn what "
            "projections beside it make of the hidden state into what its block "
            "returns: it is not recognised as an attention's output projection"
        )
    return last


def parent(call: Call) -> str:
    """Path of the module that a called one is a part of."""
    return call.name.rpartition(".")[0]


def holds_matrix(module: nn.Module) -> bool:
    """Tell whether a module has a matrix of its own and no modules within."""
    if is_parametrized(module):
        return True
    if any(True for _ in module.children()):
        return False
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return any(tensor.ndim >= 2 for tensor in tensors)


def _refuse_stacked_experts(layer: nn.Module, prefix: str) -> None:
    for name, module in layer.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 3:
                raise ModelError(
                    f"{prefix}{name}.{key} stacks {parameter.shape[0]} matrices in one "
                    "parameter: mixtures of experts are not supported"
                )


def _refuse_opaque(call: Call) -> None:
    """Refuse anything whose result is not that of a plain, visible weight matrix."""
    module, kind = call.module, type(call.module).__name__
    if any(mark in call.name for mark in ADAPTER_MARKS):
        raise ModelError(f"{call.name} belongs to an adapter; merge the adapter first")
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


def _refuse_misplaced(
    decoder: Decoder, last: Call, projections: Sequence[Call]
) -> None:
    """Refuse a last projection that is not the end of a feed-forward block."""
    d_in, d_out = last.x.shape[-1], last.y.shape[-1]
    if d_out != decoder.hidden_size:
        raise ModelError(
            f"{last.name}, the last projection of the layer, has {d_out} outputs, "
            f"expected the hidden size {decoder.hidden_size}"
        )
    if sum(call.module is last.module for call in projections) > 1:
        raise ModelError(f"{last.name} is called more than once in a forward pass")
    inner = text_config(decoder.model).intermediate_size
    widens = any(
        parent(call) == parent(last)
        and call.x.shape[-1] == decoder.hidden_size
        and call.y.shape[-1] in (d_in, 2 * d_in)
        for call in projections[:-1]
    )
    if not widens or (inner is not None and inner != d_in):
        raise ModelError(
            f"{last.name}, the last projection of the layer, reads {d_in} values that "
            "no projection beside it makes from the hidden state, or that are not the "
            f"intermediate size {inner}: it is not recognised as an MLP's down "
            "projection"
        )


def _refuse_twins(layer: nn.Module, prefix: str, last: Call) -> None:
    path = last.name.removeprefix(prefix)
    block_path, _, leaf = path.rpartition(".")
    if not block_path:
        return
    block = layer.get_submodule(block_path)
    twins = [
        f"{prefix}{name}.{leaf}"
        for name, module in layer.named_modules()
        if module is not block and type(module) is type(block)
    ]
    if twins:
        raise ModelError(
            f"{last.name} is in one of {len(twins) + 1} {type(block).__name__} of the "
            f"layer (also {twins[0]}): mixtures of experts are not supported"
        )


def _norm_after(last: Call, calls: Sequence[Call]) -> nn.Module | None:
    """Return the norm that the projection's output passes before the residual."""
    start = next(i for i, call in enumerate(calls) if call is last)
    for call in calls[start + 1 :]:
        weight = getattr(call.module, "weight", None)
        vector = isinstance(weight, Tensor) and weight.shape == last.y.shape[-1:]
        if vector and call.x.shape == last.y.shape and torch.equal(call.x, last.y):
            return call.module
    return None
