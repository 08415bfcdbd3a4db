# SPDX-License-Identifier: Apache-2.0
"""Devices by their names: whether there is such a one here, and whether it computes."""

from __future__ import annotations

import warnings

import torch

from cintervene.errors import ArgumentError

__all__ = ["named_device", "usable_device"]


def named_device(device: torch.device | str) -> torch.device:
    """Return a device of a kind that torch knows and that holds numbers.

    Raises
    ------
    ArgumentError
        It is none.
    """
    try:
        with warnings.catch_warnings():
            # Of kinds that torch is about to forget.
            warnings.simplefilter("ignore")
            found = torch.device(device)
    except (RuntimeError, TypeError):
        raise _refused(device, "which torch does not know") from None
    if found.type == "meta":
        raise _refused(device, "which holds no numbers")
    return found


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device on which this process can compute.

    Raises
    ------
    ArgumentError
        There is none of that name here, or it holds no numbers.
    """
    found = named_device(device)
    try:
        float(torch.ones(1, device=found))
    except (RuntimeError, AssertionError, ImportError) as error:
        # What is missing comes first, how torch is built after it.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = reason.partition(". ")[0]
        raise _refused(device, f"which cannot be used here ({reason})") from error
    return found


def _refused(device: object, reason: str) -> ArgumentError:
    return ArgumentError(
        f"device: got {str(device)!r}, {reason}; expected one of "
        f"{', '.join(_devices())}; leave it out for the CPU"
    )


def _devices() -> list[str]:
    """The devices that are here, by name."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    count = 0 if kind is None else torch.accelerator.device_count()
    return ["cpu", *(f"{kind}:{number}" for number in range(count))]
