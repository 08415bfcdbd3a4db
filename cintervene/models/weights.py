# SPDX-License-Identifier: Apache-2.0
"""Weight tensors as bits: hashes, differences, and the one way they are changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

Bytes = npt.NDArray[np.uint8]
# Types of weights that can be changed.
FLOAT_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
# Outputs of a weight whose rounded change is held at a time.
OUTPUTS = 512


def raw_bytes(tensor: Tensor) -> Bytes:
    """Return the bytes of a tensor in row-major order; a view where it can be one."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return np.asarray(flat.view(torch.uint8).numpy())


def add_to_hash(state: Any, model: nn.Module) -> None:
    """Add all parameters and buffers of a model, by name, to a hash of hashlib's."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(raw_bytes(tensor).data)


def sha256(tensor: Tensor) -> str:
    """Return the sha256 of a tensor's bytes as hexadecimal digits."""
    return hashlib.sha256(raw_bytes(tensor).data).hexdigest()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors of one type hold the same bits, -0 and NaN included."""
    return bool(np.array_equal(raw_bytes(a), raw_bytes(b)))


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a type without the module."""
    return str(dtype).removeprefix("torch.")


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Convert to `dtype` if no value changes by that, else return None.

    So the same checkpoint is recognised whether it was loaded as stored or wider.
    """
    cast = tensor.detach().to(dtype)
    return cast if same_bits(cast.to(tensor.dtype), tensor) else None


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither Inf nor NaN."""
    return bool(tensor.detach().isfinite().all())


@contextmanager
def overwriting() -> Iterator[Callable[[Tensor, Tensor], None]]:
    """Give a function that overwrites a tensor; all are put back at the end."""
    originals: list[tuple[Tensor, Tensor]] = []

    def overwrite(tensor: Tensor, values: Tensor) -> None:
        originals.append((tensor, tensor.detach().clone()))
        with torch.no_grad():
            tensor.copy_(values)

    try:
        yield overwrite
    finally:
        with torch.no_grad():
            for tensor, original in reversed(originals):
                tensor.copy_(original)


def flipped_bits(before: Tensor, after: Tensor) -> Bytes:
    """Return which bits differ, compressed; `flip` undoes the change with them."""
    flips = np.bitwise_xor(raw_bytes(before), raw_bytes(after))
    # Bytes of one significance side by side: those of the exponents are mostly zero.
    planes = flips.reshape(-1, before.element_size()).T
    return np.frombuffer(zlib.compress(planes.tobytes(), 1), dtype=np.uint8)


def flip(tensor: Tensor, flips: Bytes) -> Tensor:
    """Return a copy of `tensor` with the bits of `flipped_bits` flipped.

    Raises
    ------
    ValueError
        `flips` is not what `flipped_bits` made for a tensor of this size.
    """
    raw = raw_bytes(tensor)
    try:
        unpacker = zlib.decompressobj()
        planes = unpacker.decompress(flips.tobytes(), raw.size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(planes) != raw.size:
        raise ValueError(f"{len(planes)} bytes instead of {raw.size}")
    xor = np.frombuffer(planes, dtype=np.uint8).reshape(tensor.element_size(), -1).T
    changed = np.bitwise_xor(raw, xor.reshape(-1))
    result = torch.from_numpy(changed).view(tensor.dtype).view(tensor.shape)
    return result.to(tensor.device)


def add_update(weight: Tensor, update: LowRankUpdate, transposed: bool) -> None:
    """Add a (d_out, d_in) change to a weight in place, in the weight's own type."""
    change = update.T if transposed else update
    data = weight.detach()
    if data.device.type == "cpu":
        change.apply(data)
        # torch has not seen this.
        torch.autograd.graph.increment_version(data)
    else:
        data.copy_(change.apply(data.cpu()))


def rounded_change(target: Any, update: LowRankUpdate) -> Tensor:
    """Return what `update` really adds to a target's weight, rounding included.

    Parameters
    ----------
    target : Target
    update : LowRankUpdate

    Returns
    -------
    Tensor
        (d_out, d_in) float32 (float64 for float64 weights), on the weight's device.
        Quantised weights stay as they are and an adapter adds the whole change.
    """
    change = _rounded(target, update, slice(None))
    return change.to(target.device) if target.quantised else change


def rounded_outputs(target: Any, update: LowRankUpdate, inputs: Floats) -> Floats:
    """What `update` really adds to a target's outputs, rounding of the weight included.

    As with `rounded_change`, for some outputs at a time: the whole change would take
    several times the memory of the weight.

    Parameters
    ----------
    target : Target
    update : LowRankUpdate
    inputs : ndarray, shape (n, d_in)

    Returns
    -------
    ndarray, shape (n, d_out)
    """
    outputs = np.empty((len(inputs), target.d_out))
    for start in range(0, target.d_out, OUTPUTS):
        part = slice(start, start + OUTPUTS)
        outputs[:, part] = inputs @ as_floats(_rounded(target, update, part)).T
    return outputs


def _rounded(target: Any, update: LowRankUpdate, outputs: slice) -> Tensor:
    """What `update` adds to some outputs' rows of a weight, (outputs, d_in)."""
    update = LowRankUpdate(update.left[outputs], update.right)
    if target.quantised:
        return torch.from_numpy(update.matrix()).float()
    weight: Tensor = target.weight.detach()
    before = weight[:, outputs] if target.transposed else weight[outputs]
    after = before.clone()
    add_update(after, update, target.transposed)
    wide = torch.float64 if before.dtype == torch.float64 else torch.float32
    change = after.to(wide) - before.to(wide)
    return change.T if target.transposed else change


def as_floats(x: Tensor) -> Floats:
    """A tensor as a float64 array."""
    # In its own type to the host: that is a quarter of the bytes, or half of them.
    return x.detach().cpu().double().numpy()
