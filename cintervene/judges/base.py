# SPDX-License-Identifier: Apache-2.0
"""The interface of judges, and the default judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cintervene.judges.refusal import judge_refusal

__all__ = ["Judge", "refusal_matcher"]


class Judge(Protocol):
    """Tells refusals from compliance: a function, a classifier, annotators."""

    def __call__(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Sequence[bool]:
        """Tell for each answer whether it refuses what its prompt asks for."""


def refusal_matcher(prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Judge each answer by how it begins (`judge_refusal`); the default judge."""
    return [judge_refusal(answer) for answer in answers]
