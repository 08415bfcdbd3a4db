# SPDX-License-Identifier: Apache-2.0
"""The intervention that ``cintervene defend`` asks for."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.cli.common.console import Console
from cintervene.cli.common.method_options import own_options
from cintervene.data import read_words
from cintervene.intervention.intervention import Intervention
from cintervene.methods.defend import defend

__all__ = ["solve"]


def solve(
    arguments: Namespace, model: Any, tokenizer: Any, console: Console, **given: Any
) -> Intervention:
    """Defend a model against what is given, with the options that the method has."""
    given |= own_options(arguments)
    if arguments.preserve is not None:
        given["preserve"] = read_words(arguments.preserve)
    return defend(
        model,
        tokenizer,
        method=arguments.method,
        layers=arguments.layers,
        max_kl=arguments.max_kl,
        progress=console,
        **given,
    )
