# SPDX-License-Identifier: Apache-2.0
"""A ban on words while decoding, the simple alternative to changing weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cintervene.baselines.answering import Answerer, Generation
from cintervene.prompts.spelling import encode_text, surface_forms, words_to_forbid

__all__ = ["BadWords", "spellings"]


@dataclass(frozen=True, eq=False)
class BadWords:
    """Another answerer, which cannot write the words of a list.

    The last token of each spelling of a word is banned where the tokens before it were
    generated. Words that merely begin alike are banned too ("gun" stops "gunnel" if the
    tokenizer splits it there); other tokenizations of a word are not.

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
    """Token sequences of each word in each surface form, with and without a space.

    Raises
    ------
    ArgumentError
        There are no words, or the tokenizer cannot spell one.
    """
    sequences = (
        tuple(encode_text(tokenizer, gap + form))
        for word in words_to_forbid(tokenizer, words)
        for form in surface_forms(word)
        for gap in ("", " ")
    )
    return tuple(dict.fromkeys(sequences))
