# SPDX-License-Identifier: Apache-2.0
"""The model that ``--model`` names, on the device that ``--device`` names."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch

from cintervene.cli.common.console import Console
from cintervene.errors import ArgumentError
from cintervene.models import load

__all__ = ["load_named"]


def load_named(arguments: Namespace, console: Console) -> tuple[Any, Any]:
    """Load model and tokenizer.

    Raises
    ------
    ArgumentError
        There is no such device here.
    ModelError
        There is no such model, or it cannot be used.
    """
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"--device: got {arguments.device!r}, which cannot be used ({reason}); "
            "leave it out for the CPU"
        ) from error
    return load(
        arguments.model,
        hub=arguments.hub,
        device=arguments.device,
        progress=console,
    )
