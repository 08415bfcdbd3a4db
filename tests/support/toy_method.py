# SPDX-License-Identifier: Apache-2.0
"""A method that changes weights at random: the least that a method has to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from cintervene.intervention.intervention import Intervention
from cintervene.methods.account import Account, Options
from cintervene.methods.config import MethodConfig
from cintervene.methods.registry import Method
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Positive, Texts


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    """Random changes.

    Attributes
    ----------
    size : float
        Standard deviation of the change's factors.
    charms : sequence of str
        Texts that are said to help.
    """

    method: ClassVar[str] = "toy"

    size: float = parameter(
        Positive(), 0.01, "standard deviation of the change's factors", group="main"
    )
    charms: Sequence[str] = parameter(
        Texts(), (), "a UTF-8 file with texts that are said to help", private=True,
        group="texts",
    )  # fmt: skip


def solve(model: Any, tokenizer: Any, config: ToyConfig, progress: Any) -> Intervention:
    """Change the layers at random; the charms set the seed."""
    layers = [0] if config.layers == "auto" else config.layers
    config = replace(config, layers=layers)
    source = np.random.default_rng(len(config.charms))
    updates = []
    for target in find_targets(model, layers):
        left = source.normal(size=(target.d_out, 1)) * config.size
        updates.append(
            (target, LowRankUpdate(left, source.normal(size=(1, target.d_in))))
        )
    point = {"luck": 0.5, "kl": 0.0, "chosen": True}
    return Intervention.of(
        model,
        updates,
        options=config.to_dict(private=False),
        metrics={"sweep": [point], "within_limits": True},
    )


def account(_options: Options) -> Account:
    """What cards say."""
    return Account(
        asked="Luck was asked for, with {charms:charms} and size {size}.",
        found="It was found by throwing dice.",
        unproved="Nothing is proved of luck.",
        limits=("Luck does not last.",),
        measures={"luck": "share of dice that fell well"},
    )


TOY = Method(ToyConfig, f"{__name__}:solve", "change weights at random", account)
