# SPDX-License-Identifier: Apache-2.0
"""Results of the paper that this package builds on, to compare with.

Source: arXiv 2510.03567, its tables of attack success, refusals, perplexities of
forbidden words and seconds a test case. Nothing here was measured with this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CITATION", "Published", "published"]

CITATION = "arXiv 2510.03567"


@dataclass(frozen=True, slots=True)
class Published:
    """The paper's numbers for one model; defences it does not report are missing.

    Attributes
    ----------
    model : str
    complied, refused : mapping of str to float
        Per cent of HarmBench's requests, by defence.
    perplexity : mapping of str to tuple of float
        Of forbidden words, of the base and with PCR, by set of words.
    seconds : mapping of str to float
        Per test case, of the attack and of the defences.
    """

    model: str
    complied: Mapping[str, float]
    refused: Mapping[str, float]
    perplexity: Mapping[str, tuple[float, float]]
    seconds: Mapping[str, float]


def _defences(pcr: float, smoothllm: float, reminder: float) -> dict[str, float]:
    return {"PCR": pcr, "SmoothLLM": smoothllm, "Self-Reminder": reminder}


def _seconds(attack: float, pcr: float, smoothllm: float) -> dict[str, float]:
    return {"attack": attack, "PCR": pcr, "SmoothLLM": smoothllm}


MODELS = {
    r"llama-?3\.1-8b-instruct": Published(
        "Llama-3.1-8B-Instruct",
        {"none": 11.0, **_defences(0.0, 7.24, 50.8)},
        _defences(100.0, 87.5, 24.3),
        {"Obedience": (6.48, 7.735)},
        _seconds(38.89, 20.16, 36.12),
    ),
    r"mistral-7b(-instruct)?-v0\.2": Published(
        "Mistral-7B-v0.2",
        {"none": 30.0, **_defences(5.88, 18.9, 28.5)},
        _defences(26.7, 37.5, 20.0),
        {"Obedience": (8.627, 13.74)},
        _seconds(27.43, 17.28, 40.17),
    ),
    r"gemma-2b-it": Published(
        "Gemma-2B-IT",
        {"none": 22.0, **_defences(2.5, 88.225, 19.58)},
        _defences(97.4, 10.0, 36.9),
        {"Obedience": (8.816, 12.72), "HarmBench": (16.757, 18.157)},
        _seconds(14.375, 10.44, 11.62),
    ),
}


def published(model: str) -> Published | None:
    """Return the paper's numbers for a model of this name or path, if it has any."""
    name = model.casefold()
    for pattern, numbers in MODELS.items():
        if re.search(pattern, name):
            return numbers
    return None
