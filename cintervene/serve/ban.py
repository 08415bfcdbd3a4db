# SPDX-License-Identifier: Apache-2.0
"""Words and patterns that a model cannot write, as a logits processor."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cintervene.data import normal_word, unique_words
from cintervene.errors import ArgumentError
from cintervene.utils.recent import Recent
from cintervene.words.follower import WordFollower
from cintervene.words.patterns.automaton import PatternAutomaton
from cintervene.words.patterns.follower import PatternFollower, Place
from cintervene.words.vocabulary import Vocabulary

__all__ = ["WordBan"]

Scores = TypeVar("Scores")
# Texts of which it is remembered how far they are in the patterns.
_TEXTS = 4096


class WordBan:
    r"""Keeps tokens from being chosen that would complete a word or a pattern.

    It is a logits processor of transformers and of llama-cpp-python, and takes what
    they give: ``logits_processor=[ban]``. One may be used for many requests at a time.

    Parameters
    ----------
    tokenizer
        Of the model: one of transformers, a processor that has one, or a `Llama` of
        llama-cpp-python; or a `Vocabulary`, which several bans can share.
    words : sequence of str, optional
        Words and phrases, each in any case of letters, however it is cut into tokens. A
        word begins where no letter before is of the same word: "ass" leaves "class".
    patterns : sequence of str or re.Pattern, optional
        Regular expressions that may match nowhere, in the syntax of ``re`` as far as it
        needs no look elsewhere: characters, classes, groups, alternatives, repetitions,
        ``\b``, and ``(?i)`` in front. What a text has come to when a token ends counts
        as if the text ended there.

    Attributes
    ----------
    words : list of str
        As they are compared.

    Raises
    ------
    ArgumentError
        There is nothing to ban, a word is blank, a pattern cannot be followed, or the
        vocabulary has no way of writing a word.

    Examples
    --------
    >>> import numpy as np
    >>> from cintervene.serve import Vocabulary, WordBan
    >>> written = {0: b"a", 1: b" bo", 2: b"mb", 3: b" bomb", 4: b"ot", 5: b" 555"}
    >>> ban = WordBan(Vocabulary(written), ["bomb"], [r"\d{3}"])
    >>> ban.banned([0]).tolist()
    [3, 5]
    >>> ban.banned([0, 1]).tolist()
    [2, 3, 5]
    >>> ban(np.array([0, 1]), np.zeros(6, np.float32))
    array([  0.,   0., -inf, -inf,   0., -inf], dtype=float32)
    """

    def __init__(
        self,
        tokenizer: Any,
        words: Sequence[str] = (),
        patterns: Sequence[str | re.Pattern[str]] = (),
    ) -> None:
        vocabulary = _vocabulary(tokenizer)
        self._written = vocabulary.written
        self.words = unique_words(
            normal_word("words", one) for one in _listed("words", words)
        )
        automata = [PatternAutomaton(one) for one in _listed("patterns", patterns)]
        if not self.words and not automata:
            raise ArgumentError(
                'words: got none, and no patterns; expected some, e.g. words=["bomb"]'
            )
        self._follower = WordFollower(vocabulary, self.words)
        self._check_written()
        self._patterns = PatternFollower(vocabulary, automata) if automata else None
        self._places: Recent[bytes, Place] = Recent(_TEXTS)

    def __call__(self, input_ids: Any, scores: Scores) -> Scores:
        """Scores without what is banned.

        Parameters
        ----------
        input_ids : Tensor or ndarray, shape (batch, length) or (length,)
            The tokens so far, of prompt and answer.
        scores : Tensor or ndarray, shape (batch, vocabulary) or (vocabulary,)

        Returns
        -------
        Tensor or ndarray
            A copy in which banned tokens have -inf. A row in which nothing else would
            be left stays as it is.
        """
        given: Any = scores
        if given.ndim == 1:
            return self.masked(input_ids.tolist(), scores)
        changed = _copy(given)
        for history, row in zip(input_ids.tolist(), changed, strict=True):
            self._mask(history, row)
        result: Scores = changed
        return result

    def masked(self, history: Sequence[int], scores: Scores) -> Scores:
        """A copy of scores (vocabulary,) after some tokens, as above."""
        changed: Scores = _copy(scores)
        self._mask(history, changed)
        return changed

    def banned(self, history: Sequence[int]) -> npt.NDArray[np.int64]:
        """The tokens that may not come next, ascending.

        Parameters
        ----------
        history : sequence of int
            The tokens so far. A special token, or one that is not known, parts what is
            before from what is behind it.
        """
        words = np.array(self._follower.completing(history), dtype=np.int64)
        if self._patterns is None:
            return words
        found = self._patterns.completing(self._read(self._patterns, history))
        return np.union1d(words, found) if len(words) else found

    def _mask(self, history: Sequence[int], row: Any) -> None:
        banned = self.banned(history)
        # A model may have fewer logits than its tokenizer has tokens.
        banned = banned[: np.searchsorted(banned, row.shape[0])]
        kept = row[banned]
        row[banned] = -np.inf
        if bool((row == -np.inf).all()):
            row[banned] = kept

    def _read(self, patterns: PatternFollower, history: Sequence[int]) -> Place:
        """Where the text is in the patterns; the last tokens may be new."""
        written, begin = self._written, len(history)
        while begin and written.get(history[begin - 1]):
            begin -= 1
        text = history[begin:]
        place = self._places.find(_digest(text))
        if place is None:
            before = self._places.find(_digest(text[:-1]))
            place = patterns.begin if before is None else before
            for token in text if before is None else text[-1:]:
                place = patterns.after(place, written[token])
            self._places.keep(_digest(text), place)
        return place

    def _check_written(self) -> None:
        writable = self._follower.writable
        lost = [word for at, word in enumerate(self.words) if at not in writable]
        if lost:
            raise ArgumentError(
                f"tokenizer: its tokens have no way of writing {lost[0]!r}; leave it "
                "out, or check that this is the tokenizer of the model"
            )


def _vocabulary(tokenizer: Any) -> Vocabulary:
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    if hasattr(tokenizer, "n_vocab") and hasattr(tokenizer, "detokenize"):
        tokens = range(tokenizer.n_vocab())
        return Vocabulary({one: tokenizer.detokenize([one]) for one in tokens})
    # A processor of images and text has one.
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if not hasattr(inner, "get_vocab"):
        raise ArgumentError(
            f"tokenizer: got {type(tokenizer).__name__}, which has no get_vocab; "
            "expected the tokenizer of the model, or a Vocabulary"
        )
    return Vocabulary.of(inner)


def _copy(scores: Any) -> Any:
    return scores.clone() if hasattr(scores, "clone") else scores.copy()


T = TypeVar("T")


def _listed(name: str, given: Iterable[T]) -> list[T]:
    if isinstance(given, (str, bytes, re.Pattern)):
        raise ArgumentError(
            f"{name}: got the single {given!r}; expected a list. Write [{given!r}]"
        )
    return list(given)


def _digest(text: Sequence[int]) -> bytes:
    return blake2b(array("q", text).tobytes(), digest_size=16).digest()
