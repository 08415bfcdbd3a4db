# SPDX-License-Identifier: Apache-2.0
"""The parameters of PCR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cintervene.errors import ArgumentError
from cintervene.solvers.pcr import METHODS
from cintervene.utils.validation import (
    check_not_negative,
    check_positive,
    check_whole,
)

__all__ = ["CONCEPTS", "Concepts", "PCROptions", "check_concepts"]


@dataclass(frozen=True)
class PCROptions:
    """How a layer is kept away from what is forbidden (PCR), and its change weighed.

    Attributes
    ----------
    concepts : {"contrast", "unembedding", "activation", "difference"}
        What stands for what is forbidden. For a token: a half-space away from the
        direction that raises its logit, minus the mean direction of benign text or not.
        For a token or a whole concept: a ball around the mean output of the probes
        about to say it, or a half-space on the way from there to the benign mean.
    slack : float
        Price list for exceptions; see `cintervene.pcr`.
    ridge : float
        Of `Preserve`, relative to the mean squared input.
    output_ridge : float or None
        Of the output metric, relative to its mean; None measures outputs by the plain
        norm.
    solver : str
        The `method` of `cintervene.pcr`.
    max_rank : int
        Largest rank of a layer's change.
    """

    concepts: Concepts = "contrast"
    slack: float = 1.0
    ridge: float = 1e-3
    output_ridge: float | None = 1e-2
    solver: str = "exact"
    max_rank: int = 256

    def __post_init__(self) -> None:
        check_concepts(self.concepts)
        check_not_negative(slack=self.slack)
        check_positive(ridge=self.ridge)
        if self.output_ridge is not None:
            check_positive(output_ridge=self.output_ridge)
        if not (isinstance(self.solver, str) and self.solver in METHODS):
            valid = ", ".join(repr(name) for name in METHODS)
            raise ArgumentError(f"solver: got {self.solver!r}; expected one of {valid}")
        check_whole(1, max_rank=self.max_rank)


Concepts = Literal["contrast", "unembedding", "activation", "difference"]


CONCEPTS: tuple[Concepts, ...] = get_args(Concepts)


def check_concepts(concepts: str) -> Concepts:
    """Return what names a kind of concept; raise ArgumentError for anything else."""
    for name in CONCEPTS:
        if concepts == name:
            return name
    valid = ", ".join(repr(name) for name in CONCEPTS)
    raise ArgumentError(f"concepts: got {concepts!r}; expected one of {valid}")
