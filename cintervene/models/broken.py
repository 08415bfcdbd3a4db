# SPDX-License-Identifier: Apache-2.0
"""Models whose results are not numbers, and which of their tensors is to blame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cintervene.errors import ModelError
from cintervene.models.trace import Call
from cintervene.models.weights import dtype_name, is_finite

__all__ = ["refuse_broken"]


def refuse_broken(model: nn.Module, calls: Sequence[Call]) -> None:
    """Refuse a model that returns Inf or NaN.

    Parameters
    ----------
    model : nn.Module
    calls : sequence of Call
        The trace of a forward pass; the last call is that of the whole model.

    Raises
    ------
    ModelError
        It does. Named is a tensor that is broken, or else the module where results
        leave the range of their type.
    """
    if not calls or is_finite(calls[-1].y):
        return
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not is_finite(tensor):
            raise ModelError(
                f"{name} of the {type(model).__name__} holds Inf or NaN; get the model "
                "again, or load it in the type that it is stored in (dtype=)"
            )
    first = next(call for call in calls if not is_finite(call.y))
    raise ModelError(
        f"{type(model).__name__}: what {first.name or 'the model'} returns is out of "
        f"the range of {dtype_name(first.y.dtype)}; load the model "
        "in bfloat16 or float32 (dtype=)"
    )
