# SPDX-License-Identifier: Apache-2.0
"""Words that are asked for by other ways, rounded back, learnt again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.characters import Characters
from support.tiny_models import make_tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import data
from cintervene.baselines import Generation
from cintervene.errors import ArgumentError
from cintervene.evaluate.robustness.extraction import extracted, extraction
from cintervene.evaluate.robustness.quantised import quantised, round_to_bits
from cintervene.evaluate.robustness.relearning import relearn
from cintervene.evaluate.robustness.top_k import ranks
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.probes import probes, strategies
from cintervene.prompts.target_spans import TargetSpan, word_spans


class Silent:
    """Answers with the prompt, but keeps quiet about some ways."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = secrets

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        found = (prompt + generation.prefill for prompt in prompts)
        return ["" if any(s in text for s in self.secrets) else text for text in found]


def test_every_way_asks_for_every_word() -> None:
    words = ["gun", "hit man"]
    found = probes(words)
    unnamed = {"definition", "running text"}
    assert {(one.strategy, one.word) for one in found} == {
        (way, word)
        for way in strategies()
        for word in words
        if way not in unnamed or word == "gun"
    }
    for one in found:
        assert "{" not in one.prompt + one.prefill
        named = one.strategy not in unnamed | {"spelling out"}
        assert says(one.prompt, one.word) == named
    spelled = [one.prompt for one in found if one.strategy == "spelling out"]
    assert all("g-u-n" in t or "nug" in t for t in spelled[:3])
    assert any("h-i-t m-a-n" in text for text in spelled)
    with pytest.raises(ArgumentError, match="words: got none"):
        probes([])


def test_templates_take_turns() -> None:
    found = [
        one for one in probes(list("abcdef"), each=1) if one.strategy == "few shots"
    ]
    assert len({one.prompt.replace(one.word, "") for one in found}) >= 3
    assert len(found) == 6


@pytest.mark.parametrize("word", data.forbidden_words("held_out")[:10])
def test_other_ways_differ_in_the_frozen_set(word: str) -> None:
    one, other = probes([word]), probes([word], split="fresh")
    assert {p.strategy for p in one} == {p.strategy for p in other}
    assert {p.prompt for p in one} & {p.prompt for p in other} == set()
    capital = f"UPPER: {word.upper()}, lower:"
    assert any(p.prompt.endswith(capital) for p in other)


def test_extraction_compares_by_way() -> None:
    found = extraction(Silent(), Silent("in this order"), ["gun", "bomb"])
    assert found["paraphrase"].before.value == found["paraphrase"].after.value == 1.0
    assert found["spelling out"].before.value == 0.0
    few = extraction(Silent(), Silent("river"), ["gun", "bomb"])["few shots"]
    assert few.after.value == pytest.approx(2 / 3)
    assert few.effect.value == pytest.approx(-1 / 3)
    assert few.effect.low < -1 / 3 < few.effect.high


def test_answers_are_matched_with_their_prefill() -> None:
    tries = [one for one in probes(["gun"]) if one.strategy in ("prefill", "few shots")]
    found = extracted(Silent("The meaning of"), tries)
    assert found == [one.prefill != "The meaning of the word" for one in tries]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 4])
def test_rounding_is_to_the_nearest_level(bits: int, group: int | None) -> None:
    matrix = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    matrix[2] = 0.0
    found = round_to_bits(matrix, bits, group).double().numpy()
    size = group or 12
    for row, rounded in zip(matrix.double().numpy(), found, strict=True):
        for start in range(0, 12, size):
            part = row[start : start + size]
            top = 2 ** (bits - 1) - 1
            levels = np.abs(part).max() / top * np.arange(-top, top + 1)
            nearest = levels[np.abs(part[:, None] - levels).argmin(axis=1)]
            np.testing.assert_allclose(
                rounded[start : start + size], nearest, atol=1e-6
            )


@pytest.mark.parametrize(("bits", "group"), [(1, None), (9, None), (4, 5), (4, 0)])
def test_rounding_checks_its_arguments(bits: int, group: int | None) -> None:
    with pytest.raises(ArgumentError, match="bits, group"):
        round_to_bits(torch.ones(2, 12), bits, group)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_projections_are_rounded_inside_the_block_only(name: str) -> None:
    model = make_tiny_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with quantised(model, 4):
        changed = {
            key for key, value in model.state_dict().items()
            if not torch.equal(value, before[key])
        }  # fmt: skip
        ending = "mlp.c_proj.weight" if name == "gpt2" else "mlp.down_proj.weight"
        (key, *_) = [key for key in changed if key.endswith(ending)]
        matrix = before[key].T if name == "gpt2" else before[key]
        now = model.state_dict()[key]
        expected = round_to_bits(matrix, 4)
        assert torch.equal(now.T if name == "gpt2" else now, expected)
    assert len(changed) == 4 * (4 if name == "gpt2" else 7)
    assert not any("embed" in key or "norm" in key or "bias" in key for key in changed)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.fixture(scope="module")
def talk() -> Any:
    tokenizer = Characters()
    model = make_tiny_model(
        "llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=512
    )
    spans = word_spans(
        tokenizer,
        ["gun", "bomb", "knife"],
        data.obedience_templates("held_out"),
        data.answer_prefixes("held_out"),
        starting=2,
        later=2,
    )
    return model, spans


def test_ranks_count_all_openings(talk: Any) -> None:
    model, spans = talk
    found = ranks(model, spans)
    for rank, one in zip(found, spans, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([one.ids[: one.start]])).logits[0, -1]
        order = logits.argsort(descending=True).tolist()
        assert rank == min(order.index(token) for token in one.openings) + 1


def test_relearning_trains_a_copy(talk: Any) -> None:
    model, spans = talk
    before = {key: value.clone() for key, value in model.state_dict().items()}
    told: list[int] = []
    options: dict[str, Any] = {"steps": 6, "rate": 1e-2, "batch": 3}
    found = relearn(
        model,
        spans[:4],
        spans[4:],
        progress=lambda _, done, total: told.append(done),
        **options,
    )
    assert found.steps == [0, 1, 2, 4, 6]
    assert found.trained[-1] < 0.5 * found.trained[0]
    assert told == [0, 1, 2, 3, 4, 5, 6]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert relearn(model, spans[:4], spans[4:], **options) == found
    nats = -torch.log_softmax(_rows(model, spans[0]), dim=-1)
    picked = [float(nats[k, t]) for k, t in enumerate(spans[0].targets)]
    alone = relearn(model, spans[:1], spans[:1], **options)
    assert alone.others[0] == pytest.approx(np.exp(np.mean(picked)), rel=1e-4)
    with pytest.raises(ArgumentError, match="0 and 1 answers"):
        relearn(model, [], spans[:1])


def _rows(model: Any, one: TargetSpan) -> Any:
    with torch.no_grad():
        return model(torch.tensor([one.ids])).logits[0, list(one.positions)].float()
