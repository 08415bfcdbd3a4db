# SPDX-License-Identifier: Apache-2.0
"""A model whose weights are rounded to a few bits, as quantisation does.

Small changes of weights may be lost when somebody quantises the model; measuring inside
`quantised` shows whether they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cintervene.errors import ArgumentError
from cintervene.models.decoder import find_decoder
from cintervene.models.quantised import check_writable
from cintervene.models.weights import overwriting

__all__ = ["quantised", "round_to_bits"]


@contextmanager
def quantised(model: nn.Module, bits: int, group: int | None = None) -> Iterator[None]:
    """Round the projections of all layers inside the block; restore them afterwards.

    Embeddings, norms, biases and the head are left alone, as most quantisers do.

    Parameters
    ----------
    model : nn.Module
    bits : int
        From 2 to 8.
    group : int, optional
        Inputs that share a scale; default: each whole row of the (d_out, d_in) matrix.

    Raises
    ------
    ArgumentError
        The bits are out of range, or a row cannot be divided into groups.
    ModelError
        Weights are already quantised, or offloaded.
    """
    check_writable(model)
    with overwriting() as overwrite:
        for module in find_decoder(model).layers.modules():
            if isinstance(module, (nn.Linear, Conv1D)):
                weight = module.weight.detach()
                matrix = weight.T if isinstance(module, Conv1D) else weight
                overwrite(matrix, round_to_bits(matrix, bits, group))
        yield


def round_to_bits(matrix: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Round to the nearest of 2^bits - 1 evenly spaced values in each group.

    Parameters
    ----------
    matrix : Tensor
        (d_out, d_in).
    bits, group
        See `quantised`.

    Returns
    -------
    Tensor, shape (d_out, d_in), float32
    """
    rows, width = matrix.shape
    size = width if group is None else group
    if not 2 <= bits <= 8 or size < 1 or width % size:
        raise ArgumentError(
            f"bits, group: got {bits} and {group} for rows of {width}, expected 2 to 8 "
            "bits and a group that divides a row; give 4 bits, or another group"
        )
    grouped = matrix.detach().float().reshape(rows, width // size, size)
    top = 2 ** (bits - 1) - 1
    scale = grouped.abs().amax(dim=2, keepdim=True) / top
    # A group of zeros stays zero.
    whole = torch.round(grouped / scale.clamp_min(1e-30)).clamp(-top, top)
    rounded: Tensor = whole * scale
    return rounded.reshape(rows, width)
