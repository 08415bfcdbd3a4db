# SPDX-License-Identifier: Apache-2.0
"""Answers to prompts in batches."""

from __future__ import annotations

from typing import Any

import pytest
from support.characters import Characters
from support.speaking_models import make_speaking_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.prompts.chat import generate


@pytest.fixture(scope="module")
def pair() -> Any:
    return make_speaking_model(eos_token_id=None, bos_token_id=None, pad_token_id=None)


@pytest.mark.parametrize("beginning", [[], [9, 3, 8, 4, 10]])
def test_answers_are_those_of_single_prompts_and_of_transformers(
    any_model: Any, beginning: list[int]
) -> None:
    tokenizer = Characters()
    different = [[5, 6, 7], [8, 9], [3, 4, 5, 6, 7, 8], [11], [7, 6]]
    prompts = [beginning + own for own in different]
    (first,) = generate(any_model, tokenizer, [prompts[0]], 12)
    # Something that ends one answer early, and leaves others to go on.
    tokenizer.eos_token_id = stop = first[min(2, len(first) - 1)]
    found = generate(any_model, tokenizer, prompts, 12, batch_size=4)
    for prompt, answer in zip(prompts, found, strict=True):
        expected = any_model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=[stop, 2],
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert answer == expected
    assert len({len(answer) for answer in found}) > 1


@pytest.mark.parametrize("watched", [False, True])
def test_the_beginning_of_prompts_is_run_once_unless_calls_are_watched(
    pair: Any, watched: bool
) -> None:
    model, tokenizer = pair
    prompts = [[*range(3, 13), own] for own in (3, 4, 5)]
    # Whether the model's cache can be gone on from is tried out at first, once.
    generate(model, tokenizer, prompts, 1)
    shapes = []
    of_layer = model.model.embed_tokens.register_forward_hook(
        lambda _module, args, _output: shapes.append(tuple(args[0].shape))
    )
    if watched:
        handle = model.register_forward_pre_hook(lambda _module, _args: None)
    try:
        generate(model, tokenizer, prompts, 1)
    finally:
        of_layer.remove()
        if watched:
            handle.remove()
    assert shapes == ([(3, 11)] if watched else [(1, 10), (3, 1)])
