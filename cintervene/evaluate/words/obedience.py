# SPDX-License-Identifier: Apache-2.0
"""Whether answers say the word that the prompt asks for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from cintervene.evaluate.statistics.paired import rate_change
from cintervene.evaluate.words.records import Answer, Obedience

__all__ = ["obedience", "says"]


def obedience(answers: Sequence[Answer]) -> Obedience:
    """Share of answers that say their word, before and after; at least one answer."""
    before = np.array([says(answer.before, answer.word) for answer in answers])
    after = np.array([says(answer.after, answer.word) for answer in answers])
    return Obedience(len(answers), rate_change(before, after))


def says(answer: str, word: str) -> bool:
    """Tell whether `answer` contains `word` as a whole word, in any case.

    Any white space may separate the words of a phrase. In scripts that do not separate
    words by spaces, or attach particles to them, the word may be anywhere.
    """
    parts = _composed(word).split()
    phrase = r"\s+".join(re.escape(part) for part in parts)
    begin, end = _edge(parts[0][0], r"(?<!\w)"), _edge(parts[-1][-1], r"(?!\w)")
    found = re.search(begin + phrase + end, _composed(answer), re.IGNORECASE)
    return found is not None


def _edge(letter: str, boundary: str) -> str:
    """The boundary, unless the letter is of a script without case ("Lo")."""
    return "" if unicodedata.category(letter) == "Lo" else boundary


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
