# SPDX-License-Identifier: Apache-2.0
"""What callers have set for a model's arithmetic, which is not to alter what is found.

Automatic casts and short products change what is measured by more than a change of
weights does; tensors made in inference mode cannot be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from cintervene.utils.shared import SharedChange

__all__ = ["uncast", "undisturbed"]

backends: Any = torch.backends
# Of torch's settings of float32 products those that language models use.
PRODUCTS: tuple[Any, ...] = (
    backends.cuda.matmul,
    backends.cudnn.conv,
    backends.cudnn.rnn,
    backends.mkldnn.matmul,
    backends.mkldnn.conv,
)
EXACT = "ieee"


def _multiply_exactly() -> Callable[[], object]:
    before = [(one, one.fp32_precision) for one in PRODUCTS]

    def undo() -> None:
        for one, precision in before:
            one.fp32_precision = precision

    for one in PRODUCTS:
        one.fp32_precision = EXACT
    return undo


def _widen_default() -> Callable[[], object]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    return lambda: torch.set_default_dtype(before)


_EXACT_PRODUCTS = SharedChange(_multiply_exactly)
_WIDE_DEFAULT = SharedChange(_widen_default)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute as the model's types say, here and within.

    That is without autocast, outside of inference mode, with float32 products that are
    not shortened (TF32), and with torch's own default type and device.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(_EXACT_PRODUCTS)
        stack.enter_context(_WIDE_DEFAULT)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(uncast())
        yield


@contextmanager
def uncast() -> Iterator[None]:
    """Compute without autocast, here and within."""
    with ExitStack() as stack:
        for kind in _device_types():
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _device_types() -> list[str]:
    device = torch.accelerator.current_accelerator()
    return ["cpu"] if device is None else ["cpu", device.type]
