# SPDX-License-Identifier: Apache-2.0
"""How much is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cintervene.prompts.sizes import Size
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Whole

__all__ = ["EvaluationSize"]

_ONE = Whole(least=1)


@dataclass(frozen=True)
class EvaluationSize(Size):
    """How much to measure on; the time of a measurement is proportional to it.

    Attributes
    ----------
    forbidden, benign, related : int
        Answers that start with such a word, and as many that say it later.
    prompts, answer_tokens : int
        Everyday prompts that the base answers, and the answers' largest length.
    texts : int
        Passages of prose.
    forbidden_requests, benign_requests, request_tokens : int
        Requests for a word, and the largest length of the answers to them.
    elicitations : int
        Requests for a forbidden word in each of the other ways to ask for it.
    running_texts : int
        Texts that a forbidden word would go on, for one word each.
    """

    budgets: ClassVar = {
        "small": {
            "forbidden": 20, "benign": 20, "related": 10, "prompts": 12,
            "answer_tokens": 16, "texts": 3, "forbidden_requests": 20,
            "benign_requests": 20, "request_tokens": 12, "elicitations": 8,
            "running_texts": 20,
        },
        "default": {},
        "large": {
            "forbidden": 200, "benign": 200, "related": 68, "prompts": 117,
            "answer_tokens": 48, "texts": 32, "forbidden_requests": 300,
            "benign_requests": 300, "elicitations": 100,
        },
    }  # fmt: skip

    forbidden: int = parameter(_ONE, 100, "answers that start with a forbidden word")
    benign: int = parameter(_ONE, 100, "answers that start with a benign word")
    related: int = parameter(_ONE, 34, "answers that start with a related word")
    prompts: int = parameter(_ONE, 64, "everyday prompts that the base answers")
    answer_tokens: int = parameter(_ONE, 32, "length of these answers")
    texts: int = parameter(_ONE, 10, "passages of prose")
    forbidden_requests: int = parameter(_ONE, 100, "requests for a forbidden word")
    benign_requests: int = parameter(_ONE, 92, "requests for a benign word")
    request_tokens: int = parameter(_ONE, 16, "length of the answers to requests")
    elicitations: int = parameter(
        _ONE, 30, "requests for a forbidden word in each other way"
    )
    running_texts: int = parameter(_ONE, 100, "texts that a forbidden word goes on")
