# SPDX-License-Identifier: Apache-2.0
"""Prompts as the model expects them, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor, nn
from transformers import DynamicCache, NoBadWordsLogitsProcessor

from cintervene.activations.batches import group_by_length, shared_length
from cintervene.activations.lower_layers import SHORTEST_PREFIX, attention_window
from cintervene.models.caches import (
    forward_parameters,
    has_plain_cache,
    new_cache,
    repeated,
    resumes,
)
from cintervene.models.offload import device_of, has_offloaded
from cintervene.models.precision import quick_products
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.template import ChatTokenizer, chat_tokenizer
from cintervene.prompts.thinking import USUAL
from cintervene.utils.progress import Step
from cintervene.utils.ranks import deal

__all__ = [
    "Sampler",
    "answer_text",
    "chat_for",
    "continue_embeddings",
    "generate",
    "has_thoughts",
    "render",
    "stream",
    "ways",
]

# By tokenizer: its chat template when it was looked at, and what came out.
_known: WeakKeyDictionary[Any, tuple[str, ChatTokenizer]] = WeakKeyDictionary()

# Of the prompts in a batch, padding included, and how alike their lengths are: a step
# of a small batch costs nearly as much as one of a large one, so half is alike enough.
BATCH_TOKENS = 8192
SIMILAR = 0.5
# The same where a model is read from memory or a disk for each step of each batch, and
# how many answers are given at a time then.
OFFLOADED_TOKENS, MANY = 65536, 1024


def chat_for(
    model: nn.Module,
    tokenizer: Any,
    template_options: Mapping[str, Any] | None = None,
    every_mode: bool = True,
) -> ChatTokenizer:
    """The tokenizer with the modes of its template, or the one of these options.

    Without options and `every_mode` it has the one that the template has by itself.

    Raises
    ------
    ArgumentError
        As `ChatTokenizer`; or the template has tokens that the model has not.
    """
    chat = chat_tokenizer(tokenizer, template_options, every_mode)
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    chat.check_fits(len(embedding.weight))
    return chat


def render(
    tokenizer: Any,
    prompt: str,
    like: str | None = None,
    turns: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """Token ids of a user's prompt, up to where the answer begins.

    The chat template is used where the tokenizer has one; otherwise the prompt is
    plain text on a line of its own. A plain tokenizer renders in the template's own
    mode, a `ChatTokenizer` in its modes by turns; see `ChatTokenizer.render`.
    """
    return _with_modes(tokenizer).render(prompt, like, turns)


def ways(tokenizer: Any, prompt: str) -> list[tuple[list[int], list[int]]]:
    """The ways in which an answer may begin; see `ChatTokenizer.ways`."""
    return _with_modes(tokenizer).ways(prompt)


def has_thoughts(tokenizer: Any) -> bool:
    """Whether the chat template has several modes, or thoughts before answers."""
    return _with_modes(tokenizer).has_thoughts


def answer_text(tokenizer: Any, answer: Sequence[int]) -> str:
    """An answer as text, without special tokens; thoughts between the usual marks.

    What parts thoughts from the answer proper may be special tokens too.
    """
    text = str(tokenizer.decode(answer, skip_special_tokens=True))
    _, closing = _with_modes(tokenizer).think_marks
    end = encode_text(tokenizer, closing)
    places = range(len(answer) - len(end), -1, -1)
    if closing in text or not end:
        return text
    at = next((i for i in places if list(answer[i : i + len(end)]) == end), None)
    if at is None:
        return text
    parts = answer[:at], answer[at + len(end) :]
    before, after = (tokenizer.decode(p, skip_special_tokens=True) for p in parts)
    return f"{USUAL[0]}{before}{USUAL[1]}{after}"


def _with_modes(tokenizer: Any) -> ChatTokenizer:
    """The tokenizer, and whether prompts survive its template, found out once."""
    if isinstance(tokenizer, ChatTokenizer):
        return tokenizer
    template = str(getattr(tokenizer, "chat_template", None))
    known = _known.get(tokenizer)
    if known is None or known[0] != template:
        # What is kept must not keep its own key alive.
        chat = ChatTokenizer(proxy(tokenizer), every_mode=False)
        known = _known[tokenizer] = template, chat
    return known[1]


@quick_products()
def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    batch_size: int = 64,
    banned: Sequence[Sequence[int]] = (),
    step: Step | None = None,
) -> list[list[int]]:
    """Greedy answers to rendered prompts; never a run of tokens that is `banned`.

    Greedy whatever the model's generation settings say, so that answers are the same
    in any company but for rounding. What all prompts begin with is run once, unless
    somebody watches the model's calls, as a guard does, or each call reads an offloaded
    model anew: then prompts come whole.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    prompts : sequence of sequence of int
        None empty.
    max_new_tokens : int
    batch_size : int, default 64
        Answers at a time; fewer where prompts are long or of other lengths, and as
        many as there are, up to `MANY`, where parts of the model are offloaded.
    banned : sequence of sequence of int, optional
    step : callable, optional
        Called with the number of answers done since.

    Returns
    -------
    list of list of int
        New tokens only, up to and including the end of the answer.
    """
    stops = _stop_tokens(model, tokenizer)
    answers: list[list[int]] = [[] for _ in prompts]
    if not prompts:
        return answers
    prefix = _shared_prefix(model, prompts, max_new_tokens)
    lengths = [len(prompt) - len(prefix.tokens) for prompt in prompts]
    room, similar = BATCH_TOKENS, SIMILAR
    if has_offloaded(model):
        # Each step reads the model anew for each batch.
        room, similar, batch_size = OFFLOADED_TOKENS, 0.0, max(batch_size, MANY)
    if not has_plain_cache(model):
        # Padding would go into a recurrent state.
        similar = 1.0
    batches = group_by_length(lengths, room, similar, most=batch_size)

    def answer_batch(batch: Sequence[int]) -> list[list[int]]:
        rest = [prompts[i][len(prefix.tokens) :] for i in batch]
        return _generate(model, rest, prefix, max_new_tokens, stops, banned)

    def done(batch: Sequence[int]) -> None:
        if step is not None:
            step(len(batch))

    found = deal("answers", batches, answer_batch, done)
    for batch, new in zip(batches, found, strict=True):
        for index, answer in zip(batch, new, strict=True):
            answers[index] = answer
    return answers


class Sampler:
    """Chooses tokens by their probabilities, as a seed says.

    Parameters
    ----------
    temperature : float
        Above 0; logits are divided by it.
    seed : int
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """Tokens (rows,) for logits (rows, tokens)."""
        odds = (logits.double().cpu() / self._temperature).softmax(dim=1)
        drawn = torch.multinomial(odds, 1, generator=self._generator)[:, 0]
        return drawn.to(logits.device)


def stream(
    model: nn.Module,
    tokenizer: Any,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    forward: Callable[..., Any] | None = None,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[int]:
    """The tokens of an answer to a rendered prompt, each as soon as it is chosen.

    Enter `quick_products` around all of it.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    prompt : sequence of int
        Not empty.
    max_new_tokens : int
    forward : callable, optional
        Called in place of the model, such as a `cintervene.intervention.beside.Beside`.
    choose : callable, optional
        Makes a token of logits (1, tokens), such as a `Sampler`; the most likely one by
        default.

    Yields
    ------
    int
        The one that ends the answer is left out.
    """
    ids = torch.tensor([list(prompt)], device=device_of(model))
    stops = _stop_tokens(model, tokenizer)
    steps = _steps(
        model, {"input_ids": ids}, torch.ones_like(ids), max_new_tokens, stops,
        lambda _, logits: _likeliest(logits) if choose is None else choose(logits),
        forward=forward,
    )  # fmt: skip
    for _, (token,) in steps:
        if token not in stops:
            yield token


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
    (answer,) = _greedy(model, {"inputs_embeds": x}, mask, max_new_tokens, stops)
    return answer


@dataclass(frozen=True, eq=False)
class _SharedPrefix:
    """What prompts begin with, perhaps nothing, and its keys and values."""

    tokens: tuple[int, ...] = ()
    cache: DynamicCache | None = None

    def repeated(self, count: int) -> DynamicCache | None:
        """The cache of as many prompts, free to be added to."""
        return None if self.cache is None else repeated(self.cache, count)


def _shared_prefix(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> _SharedPrefix:
    """Run what all prompts begin with."""
    tokens = tuple(prompts[0][: _shareable(model, prompts, max_new_tokens)])
    if not tokens:
        return _SharedPrefix()
    cache = new_cache(model)
    ids = torch.tensor([tokens], device=device_of(model))
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return _SharedPrefix(tokens, cache)


def _shareable(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> int:
    """How many first tokens of the prompts are run once."""
    watched = model._forward_pre_hooks or model._forward_hooks
    if watched or len(prompts) < 2 or has_offloaded(model):
        return 0
    size = shared_length(prompts)
    longest = max(map(len, prompts)) + max_new_tokens
    # Padding behind the prefix takes up room in a window of attention.
    fits = longest <= attention_window(model.config.get_text_config())
    return size if fits and size >= SHORTEST_PREFIX and resumes(model) else 0


def _generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    prefix: _SharedPrefix,
    max_new_tokens: int,
    stops: list[int],
    banned: Sequence[Sequence[int]],
) -> list[list[int]]:
    """Answers to prompts without the prefix that they share."""
    length = max(map(len, prompts))
    device = device_of(model)
    pad = stops[0] if stops else 0
    rows = [[pad] * (length - len(one)) + list(one) for one in prompts]
    ids = torch.tensor(rows, device=device)
    lengths = torch.tensor([len(one) for one in prompts], device=device)
    real = torch.arange(length, device=device) >= length - lengths[:, None]
    mask = torch.cat([real.new_ones(len(real), len(prefix.tokens)), real], dim=1)
    return _greedy(
        model, {"input_ids": ids}, mask.long(), max_new_tokens, stops, banned,
        prefix.repeated(len(prompts)),
    )  # fmt: skip


def _greedy(
    model: Any,
    given: dict[str, Tensor],
    mask: Tensor,
    max_new_tokens: int,
    stops: list[int],
    banned: Sequence[Sequence[int]] = (),
    cache: Any = None,
) -> list[list[int]]:
    """Greedy answers; see `_steps`."""
    ban = NoBadWordsLogitsProcessor(list(map(list, banned)), stops) if banned else None

    def choose(said: Tensor, logits: Tensor) -> Tensor:
        return _likeliest(logits if ban is None else ban(said, logits.float()))

    answers: list[list[int]] = [[] for _ in mask]
    steps = _steps(model, given, mask, max_new_tokens, stops, choose, cache)
    for rows, new in steps:
        for row, token in zip(rows, new, strict=True):
            answers[row].append(token)
    return answers


def _likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1)


def _steps(
    model: Any,
    given: dict[str, Tensor],
    mask: Tensor,
    max_new_tokens: int,
    stops: list[int],
    choose: Callable[[Tensor, Tensor], Tensor],
    cache: Any = None,
    forward: Callable[..., Any] | None = None,
) -> Iterator[tuple[list[int], list[int]]]:
    """Answers a token at a time: their rows, and the new token of each.

    One that has ended leaves the batch. `given` holds either ``input_ids`` or
    ``inputs_embeds``, `mask` the tokens of the cache too. A model that keeps its past
    where it cannot be reached reads all anew for each token. `choose` makes tokens of
    what was said so far and the logits.
    """
    if cache is None and (has_plain_cache(model) or resumes(model)):
        cache = new_cache(model)
    takes = forward_parameters(model)
    call = model if forward is None else forward
    ends = torch.tensor(stops, dtype=torch.long, device=mask.device)
    rows = torch.arange(len(mask), device=mask.device)
    said = given.get("input_ids", mask[:, :0])
    begun = 0 if cache is None else cache.get_seq_length()
    position = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, begun:]
    for _ in range(max_new_tokens):
        options = {
            "attention_mask": mask, "position_ids": position,
            "past_key_values": cache, "logits_to_keep": 1,
        }  # fmt: skip
        options = {key: value for key, value in options.items() if key in takes}
        with torch.no_grad():
            result = call(**given, **options, use_cache=cache is not None)
        new = choose(said, result.logits[:, -1])
        yield rows.tolist(), new.tolist()
        left = (~torch.isin(new, ends)).nonzero()[:, 0]
        if len(left) == 0:
            break
        if len(left) < len(new):
            # Not batch_select_indices: a guard follows this.
            if cache is not None:
                cache.reorder_cache(left)
            given = {key: value[left] for key, value in given.items()}
            rows, new, said = rows[left], new[left], said[left]
            mask, position = mask[left], position[left]
        said = torch.cat([said, new[:, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(new)[:, None]], dim=1)
        latest = position[:, -1:] + 1
        if cache is None:
            given = _longer(model, given, new[:, None])
            position = torch.cat([position, latest], dim=1)
        else:
            given, position = {"input_ids": new[:, None]}, latest


def _longer(model: Any, given: dict[str, Tensor], new: Tensor) -> dict[str, Tensor]:
    """What a model is given, and a token more."""
    ((key, before),) = given.items()
    after = new if key == "input_ids" else model.get_input_embeddings()(new)
    return {key: torch.cat([before, after], dim=1)}


def _stop_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's and those of the generation config."""
    config = getattr(model, "generation_config", None)
    configured = getattr(config, "eos_token_id", None)
    if isinstance(configured, int):
        configured = [configured]
    end = tokenizer.eos_token_id
    stops = ([] if end is None else [end]) + list(configured or [])
    return list(dict.fromkeys(stops))
