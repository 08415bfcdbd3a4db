# SPDX-License-Identifier: Apache-2.0
"""``cintervene explain``: which weights of a model can be changed."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.cli.common.console import Console, print_json
from cintervene.cli.common.failures import Exit
from cintervene.models import Explanation, Target, explain, load
from cintervene.models.unembedding import is_tied

TIED = (
    "embeddings are tied: the unembedding is the input embedding, one matrix, which no "
    "change touches"
)


def run(arguments: Namespace, console: Console) -> Exit:
    """Print the layers, and why some are refused."""
    model, _ = load(arguments.model, hub=arguments.hub, progress=console)
    layers = None if arguments.layers == "auto" else arguments.layers
    found = explain(model, layers)
    if arguments.json:
        print_json({**as_dict(found), "tied_embeddings": is_tied(model)})
    else:
        print(found)
        if is_tied(model):
            print(TIED)
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
        "dtype": str(target.dtype).removeprefix("torch."),
    }
