# SPDX-License-Identifier: Apache-2.0
"""Products of half precision on processors that are slow at them.

Without AVX-512 a product of two bfloat16 matrices takes torch several times as long as
one of float32. There the factors are widened, which is exact, and the product is
rounded as it would have been: sums are float32 either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from cintervene.models.surroundings import undisturbed

__all__ = ["WidenedProducts", "quick_products"]

HALF = (torch.bfloat16, torch.float16)
PRODUCTS = {
    linear,
    scaled_dot_product_attention,
    torch.addmm,
    torch.bmm,
    torch.matmul,
    torch.mm,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    Tensor.matmul,
}
# Widening a weight takes as long as multiplying a few rows by it.
KEPT_BYTES = 2 << 30

_entered: ContextVar[bool] = ContextVar("entered", default=False)


@contextmanager
def quick_products() -> Iterator[None]:
    """Multiply in half precision as fast as this processor can, here and within.

    And as the model's types say, whatever the caller has set: see `undisturbed`.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    with undisturbed():
        if _entered.get() or capability.startswith("AVX512"):
            yield
            return
        token = _entered.set(True)
        try:
            with WidenedProducts():
                yield
        finally:
            _entered.reset(token)


class WidenedProducts(TorchFunctionMode):
    """Products of half precision on the CPU are computed in float32, and rounded.

    Widened weights are kept while the context lasts, up to `KEPT_BYTES`.
    """

    def __init__(self) -> None:
        super().__init__()
        # Weights that are brought in for one call only take what was kept with them.
        self._kept: MutableMapping[Tensor, _Kept] = WeakIdKeyDictionary()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Compute the product, or whatever else is called, as it is."""
        named = kwargs or {}
        first: Any = next(iter((*args, *named.values())), None)
        if function not in PRODUCTS or not _halved(first) or "out" in named:
            return function(*args, **named)
        wide = function(
            *map(self._widen, args), **{k: self._widen(v) for k, v in named.items()}
        )
        return wide.to(first.dtype)

    def _widen(self, value: Any) -> Any:
        if not _halved(value):
            return value
        learnt = value.requires_grad and torch.is_grad_enabled()
        if learnt or not isinstance(value, nn.Parameter):
            return value.float()
        return self._weight(value)

    def _weight(self, weight: nn.Parameter) -> Tensor:
        """A widened weight, as it was kept if it has not been changed since."""
        known = self._kept.get(weight)
        if known is not None:
            if known.version != weight._version:
                known.wide.copy_(weight.detach())
                known.version = weight._version
            return known.wide
        wide = weight.detach().float()
        taken = sum(kept.wide.nbytes for kept in self._kept.values())
        if taken + wide.nbytes <= KEPT_BYTES:
            self._kept[weight] = _Kept(weight._version, wide)
        return wide


@dataclass(eq=False)
class _Kept:
    version: int
    wide: Tensor


def _halved(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.dtype in HALF and value.device.type == "cpu"
    )
