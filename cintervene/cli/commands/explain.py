# SPDX-License-Identifier: Apache-2.0
"""``cintervene explain``: which weights of a model can be changed."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_as_asked
from cintervene.cli.common.neurons import NeuronUses
from cintervene.models import Explanation, Target, explain
from cintervene.models.parts import ModelParts
from cintervene.models.unembedding import is_tied
from cintervene.models.weights import dtype_name

TIED = (
    "embeddings are tied: the unembedding is the input embedding, one matrix, which no "
    "change touches"
)


def run(arguments: Namespace, console: Console) -> Exit:
    """Print the layers, why some are refused, and what neurons could do."""
    model, _ = load_as_asked(arguments, arguments.model, console)
    layers = None if arguments.layers == "auto" else arguments.layers
    found = explain(model, layers, arguments.matrix)
    whole = arguments.matrix == "down_proj" and found.targets
    uses = NeuronUses.of(ModelParts.find(model)) if whole else None
    if arguments.json:
        neurons = None if uses is None else asdict(uses)
        about = {"tied_embeddings": is_tied(model), "neurons": neurons}
        print_json({**as_dict(found), **about})
    else:
        say(found)
        if uses is not None:
            say(uses)
        if is_tied(model):
            say(TIED)
    return Exit.DONE if found.targets else Exit.GOAL_NOT_REACHED


def as_dict(found: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON has it."""
    return {
        "model": found.model,
        "layers": found.n_layers,
        "targets": [target_dict(target) for target in found.targets],
        "refused": {str(layer): reason for layer, reason in found.refused.items()},
        "experts": {"parameters": found.experts, "share": found.experts_share},
    }


def target_dict(target: Target) -> dict[str, Any]:
    """Return a target as JSON has it."""
    return {
        "layer": target.layer,
        "weight": target.name,
        "shape": [target.d_out, target.d_in],
        "transposed": target.transposed,
        "dtype": dtype_name(target.dtype),
    }
