# SPDX-License-Identifier: Apache-2.0
"""Prompts as the model expects them, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["continue_embeddings", "generate", "render"]


def render(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a user's prompt, up to where the answer begins.

    The chat template is used where the tokenizer has one; otherwise the prompt is
    plain text on a line of its own.
    """
    if getattr(tokenizer, "chat_template", None):
        message = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(
            message, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        return list(ids)
    return list(tokenizer(prompt + "\n")["input_ids"])


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    batch_size: int = 64,
    banned: Sequence[Sequence[int]] = (),
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Greedy answers to rendered prompts; never a run of tokens that is `banned`.

    Returns
    -------
    list of list of int
        New tokens only, up to and including the end of the answer.
    """
    stops = _stop_tokens(model, tokenizer)
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in _batches(prompts, batch_size):
        for index, answer in zip(
            batch,
            _generate(model, prompts, batch, max_new_tokens, stops, banned),
            strict=True,
        ):
            answers[index] = answer
        if progress is not None:
            progress(len(batch))
    return answers


def continue_embeddings(
    model: nn.Module,
    tokenizer: Any,
    before: Sequence[int],
    embeddings: Tensor,
    after: Sequence[int],
    max_new_tokens: int,
) -> list[int]:
    """Greedy answer to a prompt of which a part is given as embeddings (n, hidden)."""
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    device = embeddings.device
    head, tail = (
        embed(torch.tensor(list(part), dtype=torch.long, device=device))
        for part in (before, after)
    )
    x = torch.cat([head, embeddings.to(head.dtype), tail])[None]
    mask = torch.ones(x.shape[:2], dtype=torch.long, device=device)
    stops = _stop_tokens(model, tokenizer)
    (row,) = _greedy(model, max_new_tokens, stops, inputs_embeds=x, attention_mask=mask)
    return _cut(row, stops)


def _generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    batch: Sequence[int],
    max_new_tokens: int,
    stops: list[int],
    banned: Sequence[Sequence[int]],
) -> Iterator[list[int]]:
    length = max(len(prompts[i]) for i in batch)
    device = next(model.parameters()).device
    pad = stops[0] if stops else 0
    rows = [[pad] * (length - len(prompts[i])) + list(prompts[i]) for i in batch]
    ids = torch.tensor(rows, device=device)
    lengths = torch.tensor([len(prompts[i]) for i in batch], device=device)
    mask = torch.arange(length, device=device) >= length - lengths[:, None]
    new = _greedy(
        model,
        max_new_tokens,
        stops,
        input_ids=ids,
        attention_mask=mask.long(),
        bad_words_ids=[list(run) for run in banned] or None,
    )
    for row in new:
        yield _cut(row[length:], stops)


def _greedy(
    model: nn.Module, max_new_tokens: int, stops: list[int], **inputs: Any
) -> list[list[int]]:
    with torch.no_grad():
        rows: list[list[int]] = model.generate(  # type: ignore[operator]
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
            **inputs,
        ).tolist()
    return rows


def _cut(row: list[int], stops: Sequence[int]) -> list[int]:
    """The tokens up to and including the end of the answer."""
    ends = [at for at, token in enumerate(row) if token in stops]
    return row[: ends[0] + 1] if ends else row


def _batches(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices in batches of like length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _stop_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's and those of the generation config."""
    config = getattr(model, "generation_config", None)
    configured = getattr(config, "eos_token_id", None)
    if isinstance(configured, int):
        configured = [configured]
    own = tokenizer.eos_token_id
    found = ([] if own is None else [own]) + list(configured or [])
    return list(dict.fromkeys(found))
