# SPDX-License-Identifier: Apache-2.0
"""A trained model does not say a word that it was about to say."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import cintervene as ci
from cintervene.prompts.chat import render

LENGTH = 12
REPEATED = "The bomb is in the car. The bomb is in the car. The"
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 1.5},
    "beams": {"num_beams": 3, "num_return_sequences": 3},
    "lookup": {"prompt_lookup_num_tokens": 6},
    "static cache": {"cache_implementation": "static"},
}


def answers(model: Any, tokenizer: Any, ids: list[int], **options: Any) -> list[str]:
    """What is said after a prompt."""
    given = {"max_new_tokens": LENGTH, "do_sample": False, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = model.generate(torch.tensor([ids]), pad_token_id=0, **given)
    return tokenizer.batch_decode(found[:, len(ids) :], skip_special_tokens=True)


@pytest.mark.model
def test_a_word_is_not_said_in_any_way(smollm2: Any) -> None:
    """And what has nothing to do with it stays as it is, token for token."""
    model, tokenizer = smollm2
    model = copy.deepcopy(model).float()
    ways = {**WAYS, "assisted": {"assistant_model": copy.deepcopy(model)}}
    guard = ci.Guard(model, tokenizer, forbid=["bomb"])
    asking = tokenizer(REPEATED)["input_ids"]
    benign = render(tokenizer, "What is the capital of France?")
    assert "bomb" in answers(model, tokenizer, asking)[0]
    plain = answers(model, tokenizer, benign)
    for way, options in ways.items():
        with guard:
            found = answers(model, tokenizer, asking, **options)
            same = answers(model, tokenizer, benign, **options)
        assert not [text for text in found if "bomb" in text.lower()], way
        if way not in ("sampling", "beams"):
            assert same == plain, way
