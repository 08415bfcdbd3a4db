# SPDX-License-Identifier: Apache-2.0
"""What was proved of a change when it was made, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cintervene.evaluate.report.accounts import accounts, unique
from cintervene.evaluate.report.blocks import Block, Table
from cintervene.evaluate.report.wording import value_text
from cintervene.intervention.intervention import Intervention

__all__ = ["certificate"]

# What `reached` of a layer is; the activations to compute it anew are not kept.
ROUNDED = (
    "What is reached and the shortfall are without slack, with the change rounded to "
    "the type of the weights it was made for. They were computed when the change was "
    "made, not from these files."
)
UNROUNDED = (
    "What is reached is without slack, for the change as it was found. It was computed "
    "when the change was made and not from these files, whose own rounding it leaves "
    "out. The shortfall is that of weights rounded to their own type."
)


def certificate(intervention: Intervention, rounded: bool = True) -> Iterator[Block]:
    """Say what was proved, of what, and what was not.

    Parameters
    ----------
    intervention : Intervention
    rounded : bool, default True
        Whether the change is in weights of their own type, and not added to outputs.
    """
    entries = intervention.metrics.get("layers", [])
    solved = [entry for entry in entries if "status" in entry]
    described = accounts(intervention.options)
    reasons = [account.unproved for account, _ in described if account.unproved]
    if solved:
        yield from _solved(solved, intervention, rounded)
    elif "certified" in intervention.metrics:
        yield from _neurons(intervention.metrics)
    elif not reasons:
        yield "None was recorded for this change."
    yield from unique(reasons)


def _solved(
    solved: Sequence[Mapping[str, Any]], intervention: Intervention, rounded: bool
) -> Iterator[Block]:
    """What was proved of each layer when it was solved."""
    kind = intervention.options.get("concepts")
    unit = {"activation": "typical distances", "difference": "distances to benign"}.get(
        str(kind), "nats"
    )
    columns = {
        "layer": "layer",
        "status": "status",
        "iterations": "iterations",
        "cost": "cost",
        "asked": f"asked, {unit}",
        "reached_rounded" if rounded else "reached": f"reached, {unit}",
        "shortfall": "worst shortfall",
    }
    keys = [key for key in columns if any(key in entry for entry in solved)]
    yield Table(
        [columns[key] for key in keys],
        [[value_text(entry.get(key, "")) for key in keys] for entry in solved],
    )
    exact = intervention.options.get("solver") == "exact"
    if exact and all(entry.get("status") == "CONVERGED" for entry in solved):
        yield (
            "Each layer's problem was solved to a proved global optimum: multipliers "
            "show that no smaller change meets its constraints (with the slack of the "
            "options, in the norm that was minimised, for the solution before its rank "
            "was cut). The proof is about these constraints, not about other prompts."
        )
    else:
        yield "Optimality was not proved for every layer."
    yield ROUNDED if rounded else UNROUNDED


def _neurons(metrics: Mapping[str, Any]) -> Iterator[Block]:
    """What was proved of what neurons add."""
    proved, neurons = metrics["certified"], metrics.get("neurons", "an unknown number")
    yield (
        f"Of {neurons} neurons that open where a word is about to be said, what "
        f"{proved} add was proved to be the least that lowers the word's tokens as "
        "asked, in the norm that was minimised. When they open, and how strongly, was "
        "fitted and chosen on the tuning split: of that nothing is proved."
    )
