# SPDX-License-Identifier: Apache-2.0
"""Tiny models under guard, and what is forbidden to them."""

from __future__ import annotations

from typing import Any

import pytest

from support.characters import CHARACTERS, Characters

TOKENIZER = Characters()
# Characters that begin and end words; to a random model all are about as likely.
FORBID = ["a", "q", "xy", "7"]
STRENGTH = 6.0
# "zb" has "a" after it inside a word; the space and the quote let a word begin.
PROMPTS = ["say x", "this: ", "zb", 'now "']


def guard(model: Any, **options: Any) -> Any:
    """A guard of FORBID."""
    cintervene = pytest.importorskip("cintervene")
    options = {"forbid": FORBID, "strength": STRENGTH, **options}
    return cintervene.Guard(model, TOKENIZER, **options)


def padded(prompts: list[str] = PROMPTS) -> dict[str, Any]:
    """Left-padded input."""
    torch = pytest.importorskip("torch")
    rows = [TOKENIZER(prompt)["input_ids"] for prompt in prompts]
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def step(model: Any, size: int = 5, **options: Any) -> Any:
    """Greedy answers with the logits of each token."""
    given = {**padded(), "pad_token_id": 0, "eos_token_id": None, "do_sample": False}
    return model.generate(
        **(given | options), max_new_tokens=size, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip


def forbidden(text: str) -> list[int]:
    """Tokens that would complete one of FORBID after `text`, by looking at the text."""
    inside = text[-1:].isalnum()
    single = [] if inside else list("aAqQ7")
    begun = text[-1:].lower() == "x" and not text[-2:-1].isalnum()
    return [CHARACTERS.index(c) + 1 for c in [*single, *("yY" if begun else "")]]


def said(prompt: list[int], answer: list[int]) -> list[str]:
    """Forbidden words that an answer completes."""
    found = []
    for at, token in enumerate(answer):
        before = TOKENIZER.decode([*prompt, *answer[:at]])
        if token in forbidden(before):
            found.append(before[-4:] + TOKENIZER.decode([token]))
    return found
