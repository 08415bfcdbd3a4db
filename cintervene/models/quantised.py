# SPDX-License-Identifier: Apache-2.0
"""Projections whose weights are quantised: bitsandbytes, GPTQ, AWQ and the like.

Libraries pack in many ways and repack for one processor or another, so the matrix is
read off what the module does to unit vectors, whatever it holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.models.offload import device_of, parameter_value
from cintervene.models.trace import evaluating, evaluation_mode
from cintervene.models.weights import FLOAT_DTYPES

__all__ = [
    "QUANTISED_TOLERANCE",
    "check_gradients",
    "check_writable",
    "dequantised",
    "is_plain",
    "is_quantised",
]  # fmt: skip

# Of a result relative to its size. Inputs may be rounded to 8 bits too, which moves
# outputs of SmolLM2's layers by up to 5 %.
QUANTISED_TOLERANCE = 0.15
# Unit vectors in a batch.
BLOCK = 1024


def is_plain(weight: object) -> bool:
    """Tell whether a weight is an ordinary parameter of floats."""
    return (
        type(weight) is nn.Parameter
        and type(weight.data) is Tensor
        and weight.dtype in FLOAT_DTYPES
    )


def is_quantised(module: nn.Module) -> bool:
    """Tell whether a module holds codes instead of a matrix of floats."""
    if is_plain(getattr(module, "weight", None)):
        return False
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return any(map(_is_code, tensors))


def dequantised(module: nn.Module, d_in: int, dtype: torch.dtype) -> Tensor:
    """Return the (d_out, d_in) matrix that a module multiplies its inputs with.

    Parameters
    ----------
    module : nn.Module
    d_in : int
    dtype : torch.dtype
        Of its inputs and outputs.

    Raises
    ------
    ModelError
        It cannot be called on rows of that width and type.
    """
    starts = range(0, d_in, BLOCK)
    try:
        with evaluating(module):
            columns = [module(_units(module, i, d_in, dtype))[0] for i in starts]
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} could not be run on unit vectors of {dtype} "
            f"({type(error).__name__}: {error}); load the model in its original "
            "precision"
        ) from error
    rows = torch.cat(columns)
    if getattr(module, "bias", None) is not None:
        rows = rows - parameter_value(module, "bias").to(rows)
    return rows.T.contiguous()


def _units(module: nn.Module, first: int, d_in: int, dtype: torch.dtype) -> Tensor:
    """Unit vectors (1, up to BLOCK, d_in), from the given one on."""
    size = min(BLOCK, d_in - first)
    units = torch.zeros(size, d_in, dtype=dtype, device=device_of(module))
    units.diagonal(first).fill_(1.0)
    return units[None]


def check_writable(model: nn.Module) -> None:
    """Refuse a model some of whose weights cannot be written to.

    Raises
    ------
    ModelError
        Weights are quantised, or offloaded by accelerate.
    """
    named = model.named_parameters()
    odd = (name for name, p in named if p.is_meta or not is_plain(p))
    quantised = (name for name, _ in _quantised_modules(model))
    name = next(chain(odd, quantised), None)
    if name is not None:
        raise ModelError(
            f"model: got {name} quantised or offloaded, expected weights that can be "
            "written to; load the whole model in its original precision"
        )


def check_gradients(model: nn.Module) -> None:
    """Refuse what passes no gradient: kernels, or weights, made for inference.

    Raises
    ------
    ModelError
    """
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise ModelError(
                f"model: got {name}, which was made in inference mode, expected a "
                "weight through which gradients pass; load the model outside of "
                "torch.inference_mode()"
            )
    floats = (p.dtype for p in model.parameters() if p.dtype in FLOAT_DTYPES)
    dtype = next(floats, torch.float32)
    for name, module in _quantised_modules(model):
        if not _passes_gradients(module, dtype):
            raise ModelError(
                f"model: got {name}, a {type(module).__name__} that passes no gradient "
                f"on {device_of(module)}, expected one that does; load the model in "
                "its original precision or for another device (method pcr needs no "
                "gradients)"
            )


def _quantised_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Those that stand for a linear layer; others hold integers for other reasons."""
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and is_quantised(module):
            yield name, module


def _passes_gradients(module: Any, dtype: torch.dtype) -> bool:
    x = torch.ones(1, module.in_features, dtype=dtype, device=device_of(module))
    with evaluating(module):
        # The first call without gradients may repack the codes for good.
        module(x)
    x.requires_grad_()
    with evaluation_mode(module), torch.enable_grad(), warnings.catch_warnings():
        # That a kernel has no gradient is what is asked here.
        warnings.simplefilter("ignore")
        y = module(x)
        if not y.requires_grad:
            return False
        if getattr(module, "bias", None) is not None:
            y = y - parameter_value(module, "bias").to(y)
        size = y.float().abs()
        (gradient,) = torch.autograd.grad(size.sum(), x, allow_unused=True)
    if gradient is None:
        return False
    # The derivative along x of what is proportional to x is its value.
    error = (gradient.float() * x).sum() - size.sum()
    return bool(error.abs() <= QUANTISED_TOLERANCE * size.sum())


def _is_code(tensor: Tensor) -> bool:
    # bitsandbytes can store its 4-bit codes in tensors that claim to be floats.
    return tensor.dtype not in FLOAT_DTYPES or hasattr(tensor, "quant_state")
