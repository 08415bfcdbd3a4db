# SPDX-License-Identifier: Apache-2.0
"""``cintervene chat``: what a model answers, before and after a change."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

from cintervene.cli.common.console import Console, print_json
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.cli.dialogue.displays import Display, Unseen, display_for
from cintervene.cli.dialogue.reading import prepare_reading
from cintervene.cli.dialogue.session import Session
from cintervene.cli.dialogue.sides import Sides
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import template_options_of


def run(arguments: Namespace, console: Console) -> Exit:
    """Answer lines of stdin until they end."""
    path, intervention = arguments.intervention, None
    if path is not None:
        intervention = Intervention.load(path)
        if arguments.template_options is None:
            arguments.template_options = template_options_of(intervention.options)
    model, tokenizer = load_named(arguments, console)
    sides = Sides(
        model, tokenizer, intervention, system=arguments.system,
        max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature,
        seed=arguments.seed,
    )  # fmt: skip
    console.close()
    prepare_reading()
    show = _unseen if arguments.json else partial(display_for, sys.stdout)
    session = Session(sides, show, console)
    session.run()
    if arguments.json:
        print_json({"command": "chat", "turns": session.turns})
    return Exit.DONE


def _unseen(_sides: int) -> Display:
    return Unseen()
