# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend --dry-run``: what would be changed, and for which words."""

from __future__ import annotations

from argparse import Namespace

from cintervene.cli.commands.explain import as_dict
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.errors import ModelError
from cintervene.methods.common.gated_mlp import GatedMLP
from cintervene.methods.config import MethodConfig
from cintervene.methods.pcr import PCRConfig
from cintervene.methods.pcr.hinge.method import hinged_mlp, most_neurons
from cintervene.methods.pcr.resolve import choose_layers
from cintervene.models import Explanation
from cintervene.models.parts import ModelParts
from cintervene.prompts.spelling import surface_forms, words_to_forbid
from cintervene.utils.staging import check_place


def run(arguments: Namespace, config: MethodConfig, console: Console) -> Exit:
    """Say what would be done, which changes and writes nothing."""
    assert isinstance(config, PCRConfig)  # which alone takes words
    check_place(arguments.out)
    model, tokenizer = load_named(arguments, console)
    words = words_to_forbid(tokenizer, config.forbid or ())
    parts = ModelParts.find(model)
    asked = config.to_dict()
    mlp = hinged_mlp(parts, config)
    explanation = _planned(parts, config) if mlp is None else _of_neurons(parts, mlp)
    plan = {name: asked[name] for name in ("method", "concepts", "strength")}
    if mlp is not None:
        plan["neurons"] = most_neurons(mlp, config)
    if arguments.json:
        print_json(
            {
                "command": "defend",
                "dry_run": True,
                "out": str(arguments.out),
                **as_dict(explanation),
                "words": {word: list(surface_forms(word)) for word in words},
                **plan,
            }
        )
        return Exit.DONE
    say(explanation)
    if mlp is not None:
        say(
            f"of these at most {plan['neurons']} of {mlp.down.d_in} neurons, which "
            "will open where a word is about to be said"
        )
    say(f"{len(words)} words, each also after a space and in all its forms:")
    for word in words:
        say(f"  {', '.join(surface_forms(word))}")
    say(", ".join(f"{name} {value}" for name, value in plan.items()))
    say(f"nothing was computed or written; {arguments.out} would hold the result")
    return Exit.DONE


def _planned(parts: ModelParts, config: PCRConfig) -> Explanation:
    """The whole matrices that would be changed."""
    able = parts.changeable(config.matrix)
    layers = choose_layers(config.layers, parts.n_layers, "forbid", able)
    explanation = parts.explain(layers, config.matrix)
    for layer, reason in explanation.refused.items():
        raise ModelError(f"layer {layer} cannot be changed: {reason}")
    return explanation


def _of_neurons(parts: ModelParts, mlp: GatedMLP) -> Explanation:
    """The matrices of whose neurons some would be changed."""
    of_mlp = [mlp.gate.target, mlp.up.target, mlp.down]
    targets = list({target.name: target for target in of_mlp}.values())
    return Explanation(type(parts.model).__name__, parts.n_layers, targets, {})
