# SPDX-License-Identifier: Apache-2.0
"""The intervention that ``cintervene defend`` asks for."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.cli.console import Console
from cintervene.data import read_words
from cintervene.models import Intervention, defend

__all__ = ["solve"]


def solve(
    arguments: Namespace, model: Any, tokenizer: Any, console: Console, **given: Any
) -> Intervention:
    """Defend a model against what is given, with the options that the method has."""
    if arguments.method == "pcr":
        given |= {
            "concepts": arguments.concepts,
            "strength": arguments.strength,
            "min_effect": arguments.min_effect,
            "max_benign_loss": arguments.max_benign_loss,
        }
    if arguments.preserve is not None:
        given["preserve"] = read_words(arguments.preserve)
    if arguments.method != "gate" or arguments.matrix != "down_proj":
        given["matrix"] = arguments.matrix
    return defend(
        model,
        tokenizer,
        method=arguments.method,
        layers=arguments.layers,
        max_kl=arguments.max_kl,
        progress=console,
        **given,
    )
