# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend --dry-run``: what would be done, and what it would take."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cintervene.cli.commands.explain import as_dict
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.errors import ModelError
from cintervene.methods.common.gated_mlp import GatedMLP
from cintervene.methods.config import MethodConfig
from cintervene.methods.pcr import PCRConfig
from cintervene.methods.pcr.hinge.method import hinged_mlp, most_neurons
from cintervene.methods.pcr.resolve import choose_layers, last_changed
from cintervene.methods.plan.plan import Plan, plan
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Explanation
from cintervene.prompts.spelling import surface_forms, words_to_forbid
from cintervene.utils.staging import try_place

__all__ = ["dry_run"]


def dry_run(
    arguments: Namespace,
    config: MethodConfig,
    words: Sequence[str] | None,
    console: Console,
) -> Exit:
    """Say what would be done, which changes and writes nothing."""
    try_place(arguments.out)
    model, tokenizer = load_named(arguments, console)
    device = next(model.parameters()).device.type
    expected = plan(model, config, device=device)
    if words is None:
        return _show(arguments, {"method": config.method}, expected, [])
    assert isinstance(config, PCRConfig)  # which alone takes words
    words = words_to_forbid(tokenizer, words)
    parts = ModelParts.find(model)
    mlp = hinged_mlp(parts, config)
    explanation = _planned(parts, config) if mlp is None else _of_neurons(parts, mlp)
    asked = config.to_dict()
    chosen = {name: asked[name] for name in ("method", "concepts", "strength")}
    lines: list[object] = [explanation]
    if mlp is not None:
        chosen["neurons"] = most_neurons(mlp, config)
        lines.append(
            f"of these at most {chosen['neurons']} of {mlp.down.d_in} neurons, which "
            "will open where a word is about to be said"
        )
    forms = {word: list(surface_forms(word)) for word in words}
    lines += [
        f"{len(words)} words, each also after a space and in all its forms:",
        *(f"  {', '.join(some)}" for some in forms.values()),
    ]
    facts = {**as_dict(explanation), "words": forms, **chosen}
    return _show(arguments, facts, expected, [*lines, _listed(chosen)])


def _planned(parts: ModelParts, config: PCRConfig) -> Explanation:
    """The whole matrices that would be changed.

    Raises
    ------
    ModelError
        One of them cannot be.
    """
    able = parts.changeable(config.matrix, last_changed(parts.n_layers))
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


def _show(
    arguments: Namespace,
    facts: dict[str, Any],
    expected: Plan,
    lines: Sequence[object],
) -> Exit:
    """Print all of it, in the form that is asked for."""
    if arguments.json:
        head = {"command": "defend", "dry_run": True, "out": str(arguments.out)}
        print_json({**head, **facts, "plan": asdict(expected)})
        return Exit.DONE
    for line in lines:
        say(line)
    say(expected)
    say(f"nothing was computed or written; {arguments.out} would hold the result")
    return Exit.DONE


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
