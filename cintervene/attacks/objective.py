# SPDX-License-Identifier: Apache-2.0
"""The loss of an attack: how likely the answer is to begin as the attacker wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from cintervene.activations.batches import common_length
from cintervene.errors import ArgumentError
from cintervene.models.caches import new_cache, repeated, resumes
from cintervene.models.offload import device_of
from cintervene.models.quantised import check_gradients
from cintervene.prompts.chat import continue_embeddings, render
from cintervene.prompts.spelling import encode_text

__all__ = ["Layout", "Objective", "Scores", "allowed_tokens", "lay_out"]

# Two suffix characters that no tokenizer merges with the text around them.
FIRST, SECOND = " !", " ?"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an attacker's tokens stand in a rendered prompt.

    Attributes
    ----------
    tokenizer : Any
    request : str
    before, after : list of int
        Tokens around them; the request is among those before.
    free : list of int
        The tokens that may be changed, as they are at the start.
    target : list of int
        How the answer should begin.
    """

    tokenizer: Any
    request: str
    before: list[int]
    free: list[int]
    after: list[int]
    target: list[int]

    def prompt(self, free: Sequence[int]) -> str | None:
        """Text that is tokenized to the request and these tokens; None if none is."""
        written = self.written(free)
        if written is None or written[1] != list(free):
            return None
        return written[0]

    def written(self, free: Sequence[int]) -> tuple[str, list[int]] | None:
        """The request with these tokens as text, and the tokens of that text.

        The tokens may differ from those given. None if the text also changes how the
        rest of the prompt is tokenized.
        """
        head, tail = self.before, self.after
        # Where a space is a token of its own, it belongs to what comes before.
        for gap in ("", " "):
            text: str = self.request + gap + self.tokenizer.decode(list(free))
            ids = render(self.tokenizer, text, like=self.request)
            end = len(ids) - len(tail)
            if ids[: len(head)] == head and ids[end:] == tail and end > len(head):
                return text, ids[len(head) : end]
        return None


def lay_out(tokenizer: Any, request: str, length: int, target: str) -> Layout:
    """Place `length` exclamation marks after a request.

    Raises
    ------
    ArgumentError
        The length is not positive, the target is empty, or the tokenizer merges marks.
    """
    goal = encode_text(tokenizer, target)
    if length < 1 or not goal:
        raise ArgumentError(
            f"length, target: got {length} and {target!r}, expected at least one token "
            "and a text"
        )
    one, other = (
        render(tokenizer, request + mark * length, like=request)
        for mark in (FIRST, SECOND)
    )
    start = common_length([one, other])
    tail = common_length([one[::-1], other[::-1]])
    end = len(one) - tail
    layout = Layout(tokenizer, request, one[:start], one[start:end], one[end:], goal)
    if layout.prompt(layout.free) is None:
        raise ArgumentError(
            f"tokenizer: {length} exclamation marks after the request are not "
            "tokenized to what they were decoded from; use another length"
        )
    return layout


def allowed_tokens(tokenizer: Any, size: int) -> Tensor:
    """Tokens that can stand in a typed prompt: plain printable ASCII, nothing special.

    Returns
    -------
    Tensor, shape (size,), bool
    """
    special = set(getattr(tokenizer, "all_special_ids", ()))
    known = min(size, len(tokenizer) if hasattr(tokenizer, "__len__") else size)
    allowed = torch.zeros(size, dtype=torch.bool)
    for token in range(known):
        text = "" if token in special else tokenizer.decode([token])
        allowed[token] = bool(text) and text.isascii() and text.isprintable()
    return allowed


class Scores(NamedTuple):
    """What a forward pass says of n prompts.

    Attributes
    ----------
    losses : Tensor, shape (n,), float32
        Mean -log p of the target's tokens, in nats.
    begins : Tensor, shape (n,), bool
        Whether the greedy answer begins with the target, as far as one pass tells: in
        half precision, close calls fall otherwise where tokens come one by one.
    """

    losses: Tensor
    begins: Tensor


class Objective:
    """Mean -log p of the target's tokens after a prompt with free tokens in it.

    What comes before the free tokens is run once and kept as a KV cache.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode. No gradients are computed for its weights.
    layout : Layout

    Raises
    ------
    ModelError
        The model has quantised weights that no gradient passes through.
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self._model: Any = model
        self._embed: Any = model.get_input_embeddings()  # type: ignore[operator]
        check_gradients(model)
        device = device_of(model)
        self._layout = layout
        self.target = torch.tensor(layout.target, device=device)
        self.free = torch.tensor(layout.free, device=device)
        with torch.no_grad():
            rest = torch.tensor([*layout.after, *layout.target], device=device)
            self._rest = self._embed(rest)
            size = self._embed.weight.shape[0]
            self.embeddings: Tensor = self._embed(torch.arange(size, device=device))
            ids = torch.tensor([list(layout.before)], dtype=torch.int64, device=device)
            self._before = self._embed(ids)
            self._cache = self._prefix(ids)

    def _prefix(self, ids: Tensor) -> DynamicCache | None:
        """What comes before, run once; None where that cannot be gone on from."""
        if not resumes(self._model):
            return None
        cache = new_cache(self._model)
        if ids.numel():
            self._model(input_ids=ids, past_key_values=cache, use_cache=True)
        return cache

    def __call__(self, embeddings: Tensor) -> Scores:
        """Scores of free positions given as embeddings; the losses are differentiable.

        Parameters
        ----------
        embeddings : Tensor
            (n, free, hidden).

        Returns
        -------
        Scores
        """
        count = len(embeddings)
        rest = self._rest.expand(count, -1, -1)
        x = torch.cat([embeddings.to(rest.dtype), rest], dim=1)
        options: dict[str, Any] = {"use_cache": False}
        if self._cache is None:
            x = torch.cat([self._before.expand(count, -1, -1), x], dim=1)
        else:
            cache = repeated(self._cache, count)
            options = {"use_cache": True, "past_key_values": cache}
        wanted = len(self.target) + 1
        logits = self._model(inputs_embeds=x, logits_to_keep=wanted, **options).logits[
            :, -wanted:-1
        ]
        goal = self.target.expand(count, -1)
        losses = nn.functional.cross_entropy(
            logits.float().transpose(1, 2), goal, reduction="none"
        ).mean(dim=1)
        return Scores(losses, (logits.argmax(dim=2) == goal).all(dim=1))

    def of_tokens(self, rows: Tensor, batch: int = 64) -> Scores:
        """Scores of free positions given as tokens (n, free), without gradients."""
        with torch.no_grad():
            parts = [self(self._embed(part)) for part in torch.split(rows, batch)]
        losses, begins = (torch.cat(column) for column in zip(*parts, strict=True))
        return Scores(losses, begins)

    def is_reached(self, embeddings: Tensor) -> bool:
        """Whether the answer to embeddings (free, hidden) does begin with the target.

        It is decoded token by token, as answers are.
        """
        layout = self._layout
        around = (layout.before, embeddings, layout.after)
        said = continue_embeddings(
            self._model, layout.tokenizer, *around, len(layout.target)
        )
        return said == layout.target

    def gradient(self, embeddings: Tensor) -> tuple[Scores, Tensor]:
        """Scores of one set of embeddings (free, hidden), and its gradient, float32."""
        with torch.enable_grad():
            x = embeddings.detach().clone().requires_grad_(True)
            scores = self(x[None])
            (gradient,) = torch.autograd.grad(scores.losses[0], x)
        return Scores(scores.losses.detach(), scores.begins), gradient.float()

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (..., hidden) of tokens."""
        with torch.no_grad():
            embedded: Tensor = self._embed(tokens)
            return embedded
