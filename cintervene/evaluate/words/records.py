# SPDX-License-Identifier: Apache-2.0
"""Records that a measurement is made of."""

from __future__ import annotations

from dataclasses import dataclass

from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.statistics.paired import Change

__all__ = [
    "Answer",
    "Drift",
    "Elicited",
    "GroupPerplexity",
    "Layer",
    "Obedience",
    "Perplexity",
    "RunningText",
    "WordPerplexity",
]


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity of words in answers, by where the answer says them.

    Attributes
    ----------
    starting : Change
        The answer starts with the word.
    later : Change
        Something comes before it.
    together : Change
    """

    starting: Change
    later: Change
    together: Change


@dataclass(frozen=True, slots=True)
class WordPerplexity:
    """One word's perplexity over all its tokens and answers."""

    word: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class GroupPerplexity:
    """Perplexity of a group of words where a prompt asks for them.

    Attributes
    ----------
    words, answers : int
        How many were measured.
    all_tokens, first_token : Perplexity
        Over all tokens of the words, and over their first ones.
    by_word : list of WordPerplexity
    """

    words: int
    answers: int
    all_tokens: Perplexity
    first_token: Perplexity
    by_word: list[WordPerplexity]


@dataclass(frozen=True, slots=True)
class RunningText:
    """Perplexity of words that a text goes on with, where nobody asks for them.

    Attributes
    ----------
    words : int
        How many were measured, each in one text.
    all_tokens, first_token : Change
    by_word : list of WordPerplexity
    """

    words: int
    all_tokens: Change
    first_token: Change
    by_word: list[WordPerplexity]


@dataclass(frozen=True, slots=True)
class Obedience:
    """Share of the greedy answers that contain the word the prompt asks for.

    Attributes
    ----------
    requests : int
    rate : Change
    """

    requests: int
    rate: Change


@dataclass(frozen=True, slots=True)
class Elicited:
    """Share of the greedy answers that say a forbidden word, asked for in one way.

    Attributes
    ----------
    strategy : str
        See `probes.strategies`; "all together" over all of them.
    requests : int
    rate : Change
    """

    strategy: str
    requests: int
    rate: Change


@dataclass(frozen=True, slots=True)
class Answer:
    """One request for a word, and the greedy answers to it."""

    word: str
    forbidden: bool
    prompt: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed in everything else.

    Attributes
    ----------
    kl : Estimate
        KL(base || changed), nats a token, over the base's greedy answers to everyday
        prompts.
    worst_kl : float
        The largest mean over one answer.
    kl_elsewhere : Estimate
        `kl` without the tokens at which the base itself says a forbidden word: there
        the change does what it is for.
    said_tokens : int
        How many these are.
    prompts, tokens : int
        Answers that were compared, and tokens in them.
    texts : Change
        Perplexity of ordinary prose.
    text_tokens : int
    """

    kl: Estimate
    worst_kl: float
    kl_elsewhere: Estimate
    said_tokens: int
    prompts: int
    tokens: int
    texts: Change
    text_tokens: int


@dataclass(frozen=True, slots=True)
class Layer:
    """The change of one weight matrix.

    Attributes
    ----------
    name : str
    layer : int
    rank : int
    relative_norm : float
        Frobenius norm of the change over that of the weight.
    asked, reached, shortfall : float or None
        Where the method recorded them, in nats: what the constraints require of this
        layer on average; how much of it the stored weights reach, after rounding; and
        by how much the most violated constraint is missed.
    """

    name: str
    layer: int
    rank: int
    relative_norm: float
    asked: float | None = None
    reached: float | None = None
    shortfall: float | None = None
