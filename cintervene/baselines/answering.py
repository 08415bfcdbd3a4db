# SPDX-License-Identifier: Apache-2.0
"""Prompts in, answers out: the interface of defended and undefended models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import answer_text, generate, render
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.template import chat_tokenizer

__all__ = [
    "Answerer", "Generation", "Intervened", "Turns", "Undefended", "answer_prefilled",
]  # fmt: skip

Turns: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """How answers are generated.

    Attributes
    ----------
    max_new_tokens : int
    batch_size : int
        Answers generated at a time.
    prefill : str
        What every answer is made to begin with. Answers are returned without it.
    banned : tuple of tuple of int
        Token sequences that no answer may contain.
    turns : tuple of (role, content)
        What was said before every prompt: a system prompt, or turns of the user and
        the assistant.
    """

    max_new_tokens: int = 64
    batch_size: int = 64
    prefill: str = ""
    banned: tuple[tuple[int, ...], ...] = ()
    turns: Turns = ()

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ArgumentError(
                    f"{name}: got {getattr(self, name)}, expected at least 1; leave it "
                    "out for the default"
                )


class Answerer(Protocol):
    """A model that answers prompts, or a defence around another answerer."""

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt.

        Parameters
        ----------
        prompts : sequence of str
            User messages, without the chat template.
        generation : Generation
        seed : int, default 0
            The same prompt, settings and seed give the same answer, whatever the other
            prompts are.

        Returns
        -------
        list of str
            In the order of the prompts, without prefill and special tokens.
        """


def answer_prefilled(
    answerer: Answerer,
    pairs: Sequence[tuple[str, str]],
    generation: Generation,
    seed: int = 0,
    turns: Sequence[Turns] | None = None,
) -> list[str]:
    """Answer prompts that each have a prefill: pairs (prompt, prefill).

    `turns` is what was said before each of them.
    """
    answers = [""] * len(pairs)
    before = [generation.turns] * len(pairs) if turns is None else turns
    around = [(pair[1], said) for pair, said in zip(pairs, before, strict=True)]
    for prefill, said in dict.fromkeys(around):
        places = [at for at, other in enumerate(around) if other == (prefill, said)]
        settings = replace(generation, prefill=prefill, turns=said)
        part = answerer.answer([pairs[at][0] for at in places], settings, seed)
        for at, answer in zip(places, part, strict=True):
            answers[at] = answer
    return answers


@dataclass(frozen=True, eq=False)
class Undefended:
    """The model as it is, decoding greedily.

    Attributes
    ----------
    model : nn.Module
    tokenizer : Any
    template_options : mapping, optional
        What to give the chat template, such as ``{"enable_thinking": False}``.
    """

    model: nn.Module
    tokenizer: Any
    template_options: Mapping[str, Any] | None = None

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`."""
        chat = chat_tokenizer(self.tokenizer, self.template_options, every_mode=False)
        start = encode_text(chat, generation.prefill)
        with evaluating(self.model):
            answers = generate(
                self.model,
                chat,
                [
                    render(chat, prompt, turns=generation.turns) + start
                    for prompt in prompts
                ],
                generation.max_new_tokens,
                batch_size=generation.batch_size,
                banned=generation.banned,
            )
        return [answer_text(chat, one) for one in answers]


@dataclass(frozen=True, eq=False)
class Intervened:
    """Another answerer, with an intervention applied to its model."""

    inner: Answerer
    model: nn.Module
    intervention: Intervention

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`. The weights are restored."""
        with self.intervention.applied(self.model):
            return self.inner.answer(prompts, generation, seed)
