# SPDX-License-Identifier: Apache-2.0
"""A ban on words while decoding, the plain alternative to changing weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cintervene.baselines.answering import Answerer, Generation
from cintervene.prompts.spelling import (
    check_spellable,
    encode_text,
    surface_forms,
)

__all__ = ["BadWords", "spellings"]


@dataclass(frozen=True, eq=False)
class BadWords:
    """Another answerer, which cannot write some words.

    The last token of each spelling of a word is ruled out where the others stand
    before it. Words that merely begin alike are ruled out too ("gun" stops "gunnel" if
    the tokenizer parts it there), and spellings with other breaks are not.

    Attributes
    ----------
    inner : Answerer
    tokenizer : Any
    words : sequence of str
    """

    inner: Answerer
    tokenizer: Any
    words: Sequence[str]

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`."""
        banned = generation.banned + spellings(self.tokenizer, self.words)
        return self.inner.answer(prompts, replace(generation, banned=banned), seed)


def spellings(tokenizer: Any, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """All runs of tokens that write a word, in each surface form, after a space or not.

    Raises
    ------
    ArgumentError
        There are no words, or the tokenizer cannot spell one.
    """
    check_spellable(tokenizer, words)
    found = (
        tuple(encode_text(tokenizer, gap + form))
        for word in words
        for form in surface_forms(word)
        for gap in ("", " ")
    )
    return tuple(dict.fromkeys(found))
