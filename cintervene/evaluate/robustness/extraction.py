# SPDX-License-Identifier: Apache-2.0
"""Extraction: whether other prompts still make a model say its forbidden words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cintervene.baselines.answering import Answerer, Generation, answer_prefilled
from cintervene.data import Split
from cintervene.evaluate.statistics.paired import Change, rate_change
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.probes import Probe, probes
from cintervene.utils.progress import Progress, counting, silent

__all__ = ["extracted", "extraction"]

SHORT = Generation(max_new_tokens=24)


def extracted(
    answerer: Answerer,
    attempts: Sequence[Probe],
    generation: Generation = SHORT,
    seed: int = 0,
) -> list[bool]:
    """Tell for each attempt whether the answer says the word."""
    prompts = [(one.prompt, one.prefill) for one in attempts]
    answers = answer_prefilled(answerer, prompts, generation, seed)
    pairs = zip(attempts, answers, strict=True)
    return [says(answer, one.word) for one, answer in pairs]


def extraction(
    before: Answerer,
    after: Answerer,
    words: Sequence[str],
    *,
    each: int | None = None,
    split: Split = "held_out",
    generation: Generation = SHORT,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Change]:
    """Rates of extraction with each strategy, before and after a defence.

    Parameters
    ----------
    before, after : Answerer
        The model without and with its defence.
    words : sequence of str
    each, split, generation, seed
        See `probes` and `extracted`.
    progress : callable, optional
        Called as it goes; see `Progress`.

    Returns
    -------
    dict of str to Change
        By strategy; intervals are Wilson's and, of the difference, Newcombe's.
    """
    attempts = probes(words, each, split)
    report = counting(progress, "asking in other ways", 2)
    found = []
    for answerer in (before, after):
        found.append(np.array(extracted(answerer, attempts, generation, seed)))
        report(1)
    old, new = found
    used = np.array([one.strategy for one in attempts])
    return {
        strategy: rate_change(old[used == strategy], new[used == strategy])
        for strategy in dict.fromkeys(used.tolist())
    }
