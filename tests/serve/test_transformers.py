# SPDX-License-Identifier: Apache-2.0
"""Bans in transformers' `generate`: tiny models, and SmolLM2 asked for the words."""

from __future__ import annotations

import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.speaking_models import make_speaking_model
from support.trained_tokenizer import train_tokenizer

from cintervene import data
from cintervene.serve import WordBan

# Ways in which `generate` chooses tokens.
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "hot sampling": {"do_sample": True, "temperature": 2.0},
    "nucleus": {"do_sample": True, "top_p": 0.9, "top_k": 0},
    "beams": {"do_sample": False, "num_beams": 4},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_tiny_model_never_writes_what_is_banned(way):
    model, tokenizer = make_speaking_model()
    start = torch.tensor([[1, 2, 3]] * 8)
    torch.manual_seed(0)
    options = {"max_new_tokens": 60, "pad_token_id": 0, "eos_token_id": None}
    free = model.generate(start, **options, **WAYS[way])
    said = [tokenizer.decode(row[3:].tolist()) for row in free]
    pairs = sorted({text[at : at + 2] for text in said for at in range(0, 40, 7)})
    patterns = [re.escape(pair) for pair in pairs] + [r"[aeiou]\d", r"(.)(?:x|y)[A-Z]"]
    ban = WordBan(tokenizer, [], patterns)
    torch.manual_seed(0)
    held = model.generate(start, logits_processor=[ban], **options, **WAYS[way])
    for row in held:
        text = tokenizer.decode(row.tolist())[3:]
        assert not [one for one in patterns if re.search(one, text)]


def test_left_padding_and_requests_of_a_batch_do_not_mix():
    tokenizer = train_tokenizer(600)
    ban = WordBan(tokenizer, ["mak", "th"])
    tokenizer.padding_side = "left"
    texts = ["How do I ma", "I like t"]
    batch = tokenizer(texts, return_tensors="pt", padding=True).input_ids
    scores = torch.zeros(2, len(tokenizer))
    both = ban(batch, scores)
    for text, row in zip(texts, both, strict=True):
        alone = ban(tokenizer(text, return_tensors="pt").input_ids, scores[:1])
        assert torch.equal(row, alone[0])
    ends = [tokenizer.convert_tokens_to_ids(one) for one in ("k", "h")]
    assert torch.isneginf(both[:, ends]).tolist() == [[True, False], [False, True]]


@pytest.mark.model
def test_smollm2_does_not_say_banned_words_and_phrases(smollm2):
    model, tokenizer = smollm2
    words = ["bomb", "knife", "poison", "machine gun"]
    patterns = [r"(?i)\bgrenades?\b"]
    prompts = [
        f"{ask} {word}." for word in [*words, "grenade"] for ask in ("Say", "Repeat: ")
    ]
    tokenizer.padding_side = "left"
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for prompt in prompts
    ]
    batch = tokenizer(chats, return_tensors="pt", padding=True)
    length = batch.input_ids.shape[1]

    def answers(**options):
        made = model.generate(
            **batch, max_new_tokens=24, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, **options,
        )  # fmt: skip
        return tokenizer.batch_decode(made[:, length:], skip_special_tokens=True)

    spoken = re.compile(
        r"\b(bombs?|knife|poison|machine\s+gun|grenades?)\b", re.IGNORECASE
    )
    assert sum(bool(spoken.search(text)) for text in answers()) >= 5
    ban = WordBan(tokenizer, words, patterns)
    held = answers(logits_processor=[ban])
    said = [data.caseless(found[0]) for text in held if (found := spoken.search(text))]
    # Other words may be said; "bombs" as a token of its own is another word.
    assert [one for one in said if one != "bombs"] == []
    assert all(text.strip() for text in held)
