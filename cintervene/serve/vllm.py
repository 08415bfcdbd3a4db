# SPDX-License-Identifier: Apache-2.0
"""Bans in vLLM, each request with its own words and patterns.

``vllm serve MODEL --logits-processors cintervene.serve.vllm:RequestBans``; a request
names them as ``{"vllm_xargs": {"banned_words": ["bomb"], "banned_patterns": []}}``, or
``SamplingParams(extra_args={"banned_words": ["bomb"]})``. Importing this needs vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import AutoTokenizer
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from cintervene.errors import ArgumentError
from cintervene.serve.ban import WordBan
from cintervene.words.patterns.automaton import PatternAutomaton
from cintervene.words.vocabulary import Vocabulary

__all__ = ["RequestBans"]

# What a request calls them.
WORDS, PATTERNS = "banned_words", "banned_patterns"
# Bans that are kept for requests that name the same.
_KEPT = 64


class RequestBans(AdapterLogitsProcessor):  # type: ignore[misc]
    """A logits processor of vLLM (V1) that bans what each request names.

    Parameters
    ----------
    vllm_config, device, is_pin_memory
        As vLLM gives them; the tokenizer is the one that `vllm_config` names.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        model = vllm_config.model_config
        tokenizer = AutoTokenizer.from_pretrained(
            model.tokenizer,
            revision=getattr(model, "tokenizer_revision", None),
            trust_remote_code=False,
        )
        vocabulary = Vocabulary.of(tokenizer)

        def make(words: tuple[str, ...], patterns: tuple[str, ...]) -> WordBan:
            return WordBan(vocabulary, words, patterns)

        self._ban = lru_cache(_KEPT)(make)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose lists are no lists, or hold what cannot be banned.

        Raises
        ------
        ValueError
            Naming what is wrong, as vLLM expects it.
        """
        try:
            _, patterns = _named(sampling_params)
            for one in patterns:
                PatternAutomaton(one)
        except ArgumentError as error:
            raise ValueError(str(error)) from error

    def is_argmax_invariant(self) -> bool:
        """No: what is most likely may be banned."""
        return False

    def new_req_logits_processor(self, params: Any) -> _RequestBan | None:
        """The ban of a request; None where it names none."""
        words, patterns = _named(params)
        if not words and not patterns:
            return None
        return _RequestBan(self._ban(words, patterns))


class _RequestBan:
    """What vLLM calls for each token of a request."""

    def __init__(self, ban: WordBan) -> None:
        self._ban = ban

    def __call__(
        self, prompt_ids: Sequence[int] | None, output_ids: Sequence[int], logits: Any
    ) -> Any:
        """Logits (vocabulary,) without what is banned, as a copy."""
        history = [*(prompt_ids or ()), *output_ids]
        return self._ban.masked(history, logits)


def _named(params: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words and patterns that a request names."""
    given = getattr(params, "extra_args", None) or {}
    words, patterns = (_texts(name, given.get(name)) for name in (WORDS, PATTERNS))
    return words, patterns


def _texts(name: str, given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)) or not all(
        isinstance(one, str) for one in given
    ):
        raise ArgumentError(f"{name}: got {given!r}; expected a list of strings")
    return tuple(given)
