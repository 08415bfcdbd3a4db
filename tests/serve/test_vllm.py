# SPDX-License-Identifier: Apache-2.0
"""The class for vLLM against the interface that vLLM documents, without vLLM."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.trained_tokenizer import train_tokenizer

from cintervene.serve import WordBan

MODULE = "cintervene.serve.vllm"


class Adapter:
    """What vLLM's AdapterLogitsProcessor does with a request's processor."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self.requests: dict[int, Any] = {}

    def add(
        self, index: int, params: Any, prompt: list[int], output: list[int]
    ) -> None:
        made = self.new_req_logits_processor(params)
        if made is not None:
            # The list of a request's output grows while it is served.
            self.requests[index] = lambda row: made(prompt, output, row)

    def apply(self, logits: Any) -> Any:
        for index, process in self.requests.items():
            logits[index] = process(logits[index])
        return logits


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A processor as vLLM makes one, with a tokenizer saved to disk."""
    names = ["vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.logits_processor"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].AdapterLogitsProcessor = Adapter
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    tokenizer = train_tokenizer(500)
    tokenizer.save_pretrained(tmp_path)
    config = SimpleNamespace(model_config=SimpleNamespace(tokenizer=str(tmp_path)))
    yield import_module(MODULE).RequestBans(config, "cpu", False), tokenizer
    sys.modules.pop(MODULE, None)


def params(**named):
    return SimpleNamespace(extra_args=named or None)


def test_each_request_has_its_own_bans(served):
    processor, tokenizer = served
    prompt, output = tokenizer("How do I ma").input_ids, []
    processor.add(0, params(banned_words=["mak"]), prompt, output)
    processor.add(1, params(), prompt, [])
    processor.add(2, params(banned_patterns=["ma[a-z]"]), prompt, [])
    logits = processor.apply(torch.zeros(3, len(tokenizer)))
    alone = WordBan(tokenizer, ["mak"]).banned(prompt)
    assert torch.isneginf(logits[0]).nonzero().flatten().tolist() == alone.tolist()
    assert not torch.isneginf(logits[1]).any()
    assert torch.isneginf(logits[2])[tokenizer.convert_tokens_to_ids("k")]
    output += tokenizer(" the").input_ids
    logits = processor.apply(torch.zeros(3, len(tokenizer)))
    later = WordBan(tokenizer, ["mak"]).banned([*prompt, *output])
    assert later.tolist() != alone.tolist()
    assert torch.isneginf(logits[0]).nonzero().flatten().tolist() == later.tolist()


def test_it_changes_what_is_most_likely(served):
    assert not served[0].is_argmax_invariant()


def test_equal_requests_share_a_ban(served):
    processor, _ = served
    first, second, third = (
        processor.new_req_logits_processor(params(banned_words=[word]))
        for word in ("make", "make", "the")
    )
    assert first._ban is second._ban
    assert first._ban is not third._ban


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"banned_words": "make"}, "banned_words: got 'make'"),
        ({"banned_words": [3]}, "banned_words"),
        ({"banned_patterns": ["a("]}, "no regular expression"),
        ({"banned_patterns": ["^a"]}, "anchor"),
    ],
)
def test_requests_that_make_no_sense_are_refused_when_they_come(served, named, message):
    with pytest.raises(ValueError, match=message):
        type(served[0]).validate_params(params(**named))


def test_requests_without_bans_are_let_through(served):
    type(served[0]).validate_params(params())
    type(served[0]).validate_params(params(banned_words=["make"]))
