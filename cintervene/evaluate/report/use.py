# SPDX-License-Identifier: Apache-2.0
"""How an intervention is used, taken back and made again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from cintervene.evaluate.report.blocks import Block, Program
from cintervene.evaluate.report.command import command
from cintervene.intervention.acceptance import crossed
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.utils.escaping import printable

__all__ = ["use"]


def use(intervention: Intervention) -> Iterator[Block]:
    """Commands and lines of Python; the command that makes it again at the end."""
    model = printable(intervention.model or "MODEL")
    beyond = "" if crossed(intervention) is None else "--beyond-limits "
    if isinstance(intervention, AdapterIntervention):
        yield from _attached(model, beyond)
    else:
        yield from _applied(model, beyond)
    again = list(command(intervention))
    if again:
        yield "The same change again:"
        yield from again


def _applied(model: str, beyond: str) -> Iterator[Block]:
    place = shlex.quote(model)
    yield Program(
        f"cintervene chat --model {place} --intervention intervention.safetensors\n"
        f"cintervene apply --model {place} --intervention "
        f"intervention.safetensors {beyond}--out changed\n"
        "cintervene revert --model changed --intervention intervention.safetensors "
        "--out base"
    )
    yield Program(
        "import cintervene as ci\n\n"
        f"model, tokenizer = ci.models.load({json.dumps(model)})\n"
        'intervention = ci.Intervention.load("intervention.safetensors")\n'
        "intervention.apply(model)   # in place; refused if the base is another one\n"
        "intervention.revert(model)  # the old weights, to the bit",
        "python",
    )


def _attached(model: str, beyond: str) -> Iterator[Block]:
    """What can be done where weights are quantised or offloaded to a disk."""
    yield (
        "Weights of this model are packed or offloaded to a disk, and cannot be "
        "changed themselves. The change is added to outputs, as adapters are:"
    )
    yield Program(
        "import cintervene as ci\n\n"
        f"model, tokenizer = ci.models.load({json.dumps(model)})\n"
        'change = ci.Intervention.load("intervention.safetensors")\n'
        "attached = ci.export.AdapterIntervention(change)\n"
        "attached.apply(model)   # the base is not checked\n"
        "attached.revert(model)  # nothing is added any more",
        "python",
    )
    yield "As a LoRA adapter, which peft loads onto packed weights:"
    yield Program(
        "cintervene export --to lora --intervention intervention.safetensors "
        f"{beyond}--out adapter"
    )
    yield "Where weights are only on a disk, `cintervene apply` changes the checkpoint."
