# SPDX-License-Identifier: Apache-2.0
"""A measurement of tiny models is what plain forward passes say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from support.characters import Characters
from support.tiny_models import make_tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import data
from cintervene.errors import ArgumentError, InterventionError
from cintervene.evaluate import EvaluationSize, WordMeasurement, measure, word_table
from cintervene.evaluate.words.elicitation import elicited
from cintervene.evaluate.words.measure import forbidden_words
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.probes import probes
from cintervene.evaluate.words.samples import gather
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.prompts.chat import generate, render
from cintervene.prompts.target_spans import TargetSpan
from cintervene.prompts.word_sentences import said_at, token_forms
from cintervene.solvers.update import LowRankUpdate

WORDS = ["gun", "murder", "hit man"]
SMALL = EvaluationSize(
    forbidden=6,
    benign=4,
    related=3,
    prompts=5,
    answer_tokens=7,
    texts=2,
    forbidden_requests=7,
    benign_requests=5,
    request_tokens=6,
    elicitations=2,
    running_texts=2,
)


def make_model(name: str = "llama") -> Any:
    tokenizer = Characters()
    return make_tiny_model(
        name,
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )


def make_intervention(model: Any, size: float = 0.2, **details: Any) -> Intervention:
    source = np.random.default_rng(0)
    pairs = [
        (
            target,
            LowRankUpdate(
                source.normal(size=(target.d_out, 2)) * size,
                source.normal(size=(2, target.d_in)) * size,
            ),
        )
        for target in find_targets(model, [2, 3])
    ]
    return Intervention.of(model, pairs, **details)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def intervention(model: Any) -> Intervention:
    return make_intervention(model, options={"forbid": WORDS})


@pytest.fixture(scope="module")
def measurement(model: Any, intervention: Intervention) -> WordMeasurement:
    return measure(model, Characters(), intervention, size=SMALL)


def log_probabilities(model: Any, one: TargetSpan) -> Any:
    """Of every next token where tokens matter, by the model's own forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([one.ids])).logits[0].double()
    return torch.log_softmax(logits, dim=-1)[list(one.positions)]


def nats(model: Any, group: Sequence[TargetSpan]) -> list[Any]:
    return [
        -log_probabilities(model, one)[range(len(one.targets)), list(one.targets)]
        for one in group
    ]


def perplexities(found: Sequence[Any]) -> tuple[float, float]:
    every = float(torch.cat(list(found)).mean().exp())
    first = float(torch.stack([one[0] for one in found]).mean().exp())
    return every, first


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_perplexities(name: str) -> None:
    model, tokenizer = make_model(name), Characters()
    intervention = make_intervention(model)
    found = measure(model, tokenizer, intervention, forbid=WORDS, size=SMALL)
    spans = gather(tokenizer, WORDS, "held_out", SMALL).word_spans
    with intervention.applied(model):
        changed = {kind: nats(model, group) for kind, group in spans.items()}
    for kind, group in spans.items():
        spoken = getattr(found, kind)
        later = [one.later for one in group]
        assert any(later)
        assert not all(later)
        for place, chosen in (("later", True), ("starting", False)):
            before, after = (
                [x for x, here in zip(every, later, strict=True) if here == chosen]
                for every in (nats(model, group), changed[kind])
            )
            for at, kind_of_token in enumerate(("all_tokens", "first_token")):
                change = getattr(getattr(spoken, kind_of_token), place)
                old, new = perplexities(before)[at], perplexities(after)[at]
                assert change.before.value == pytest.approx(old, rel=1e-4)
                assert change.after.value == pytest.approx(new, rel=1e-4)
                assert change.effect.value == pytest.approx(new / old, rel=1e-4)
                assert change.effect.low <= change.effect.value <= change.effect.high


def test_words_one_by_one(model: Any, measurement: WordMeasurement) -> None:
    sample = gather(Characters(), WORDS, "held_out", SMALL)
    assert [word.word for word in measurement.forbidden.by_word] == WORDS
    for word in measurement.forbidden.by_word:
        own = [one for one in sample.word_spans["forbidden"] if one.word == word.word]
        assert word.before == pytest.approx(perplexities(nats(model, own))[0], rel=1e-4)


def test_drift(
    model: Any, intervention: Intervention, measurement: WordMeasurement
) -> None:
    tokenizer = Characters()
    prompts = [render(tokenizer, p.text) for p in data.benign_prompts("held_out")[:5]]
    answers = generate(model, tokenizer, prompts, SMALL.answer_tokens)
    group = [
        TargetSpan((*prompt, *answer), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    base = [log_probabilities(model, one) for one in group]
    with intervention.applied(model):
        changed = [log_probabilities(model, one) for one in group]
    kl = [(p.exp() * (p - q)).sum(-1) for p, q in zip(base, changed, strict=True)]
    drift = measurement.drift
    assert drift.kl.value == pytest.approx(float(torch.cat(kl).mean()), rel=1e-3)
    assert drift.worst_kl == pytest.approx(
        max(float(one.mean()) for one in kl), rel=1e-3
    )
    assert (drift.prompts, drift.tokens) == (5, sum(map(len, answers)))
    # Without what the base itself says of the words.
    forms = token_forms(tokenizer, *WORDS)
    said = torch.tensor([said for one in group for said in said_at(forms, one)])
    assert drift.said_tokens == int(said.sum())
    elsewhere = torch.cat(kl)[~said]
    assert drift.kl_elsewhere.value == pytest.approx(float(elsewhere.mean()), rel=1e-3)
    texts = gather(tokenizer, WORDS, "held_out", SMALL).texts
    old = perplexities(nats(model, texts))[0]
    assert drift.texts.before.value == pytest.approx(old, rel=1e-4)


def test_obedience(
    model: Any, intervention: Intervention, measurement: WordMeasurement
) -> None:
    tokenizer = Characters()
    requests = gather(tokenizer, WORDS, "held_out", SMALL).requests
    prompts = [render(tokenizer, request.prompt) for request in requests]
    with intervention.applied(model):
        answers = generate(model, tokenizer, prompts, SMALL.request_tokens)
    texts = [tokenizer.decode(one) for one in answers]
    assert [answer.after for answer in measurement.answers] == texts
    assert [answer.before for answer in measurement.answers] != texts
    assert measurement.obedience.requests == 7
    assert measurement.benign_obedience is not None
    assert measurement.benign_obedience.requests == 5


def test_running_text(
    model: Any, intervention: Intervention, measurement: WordMeasurement
) -> None:
    """The words that the package has texts for, where nobody asks for them."""
    texts = data.running_texts("held_out")
    rows = {}
    for word in ("gun", "murder"):
        ids = Characters()(f"{texts[word]} {word}")["input_ids"]
        start = len(ids) - len(word)
        rows[word] = TargetSpan(tuple(ids), start, word)
    before = nats(model, list(rows.values()))
    with intervention.applied(model):
        after = nats(model, list(rows.values()))
    found = measurement.running
    assert found is not None
    assert found.words == 2
    for kind, (every, first) in (
        ("before", perplexities(before)), ("after", perplexities(after))
    ):  # fmt: skip
        assert getattr(found.all_tokens, kind).value == pytest.approx(every, rel=1e-4)
        assert getattr(found.first_token, kind).value == pytest.approx(first, rel=1e-4)
    by_word = {one.word: one.after for one in found.by_word}
    gun = float(after[list(rows).index("gun")].mean().exp())
    assert by_word["gun"] == pytest.approx(gun, rel=1e-4)


def test_other_ways_to_ask(measurement: WordMeasurement) -> None:
    together, *each = measurement.elicited
    assert together.strategy == "all together"
    assert together.requests == sum(one.requests for one in each)
    by_strategy = {one.strategy: one.requests for one in each}
    # "hit man" is no word of the package's, so it has no definition.
    assert by_strategy == {
        "definition": 2, "running text": 2, "paraphrase": 2, "translation": 2,
        "spelling out": 2, "prefill": 2, "few shots": 2,
    }  # fmt: skip


def test_answers_to_other_ways_are_counted() -> None:
    attempts = probes(["gun", "bomb"], 1)
    before = [f"It is {one.word}." for one in attempts]
    after = ["bombs" if one.word == "bomb" else "A gun." for one in attempts]
    together, *each = elicited(attempts, before, after)
    for one in each:
        assert (one.requests, one.rate.before.value) == (2, 1.0)
        assert one.rate.after.value == 0.5
    assert together.rate.effect.value == -0.5
    assert elicited([], [], []) == []


def test_nothing_is_elicited_on_what_methods_see() -> None:
    for split in ("train", "tune"):
        sample = gather(Characters(), WORDS, split, SMALL)
        assert sample.probes == sample.running == []
    fresh = gather(Characters(), ["gun", "rifle"], "fresh", SMALL)
    assert [one.word for one in fresh.running] == ["gun"]
    assert {one.word for one in fresh.probes} == {"gun", "rifle"}


def test_layers_and_seconds(
    intervention: Intervention, measurement: WordMeasurement
) -> None:
    assert [layer.layer for layer in measurement.layers] == [2, 3]
    for layer in measurement.layers:
        edit = intervention.edits[layer.name]
        assert layer.rank == edit.update.rank
        assert layer.relative_norm == edit.relative_norm
        assert layer.shortfall is None
    assert len(measurement.seconds) == 7
    assert all(seconds >= 0 for seconds in measurement.seconds.values())


def test_margins_are_taken_from_the_metrics(model: Any) -> None:
    name = find_targets(model, [3])[0].name
    recorded = {"asked": 2.0, "reached_rounded": 1.5, "shortfall": 0.25}
    metrics = {"layers": [{"name": name, **recorded}]}
    intervention = make_intervention(model, metrics=metrics)
    found = measure(model, Characters(), intervention, forbid=WORDS, size=SMALL)
    assert [layer.shortfall for layer in found.layers] == [None, 0.25]
    assert [layer.asked for layer in found.layers] == [None, 2.0]
    assert [layer.reached for layer in found.layers] == [None, 1.5]


def test_repeats(
    model: Any, intervention: Intervention, measurement: WordMeasurement
) -> None:
    again = measure(model, Characters(), intervention, size=SMALL).to_dict()
    first = measurement.to_dict()
    del again["seconds"], first["seconds"]
    assert again == first


def test_as_json(measurement: WordMeasurement) -> None:
    text = json.dumps(measurement.to_dict(), allow_nan=False)
    found = json.loads(text)
    assert list(found) == [field.name for field in fields(WordMeasurement)]
    assert set(found["drift"]["kl"]) == {"value", "low", "high"}


def test_model_stays_as_it_was(model: Any, intervention: Intervention) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def interrupted(phase: str, done: int, total: int) -> None:
        if phase == "answers after":
            raise KeyboardInterrupt

    model.train()
    with pytest.raises(KeyboardInterrupt):
        measure(model, Characters(), intervention, size=SMALL, progress=interrupted)
    assert model.training
    model.eval()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_progress(model: Any, intervention: Intervention) -> None:
    calls: list[tuple[str, int, int]] = []

    def note(phase: str, done: int, total: int) -> None:
        calls.append((phase, done, total))

    measure(model, Characters(), intervention, size=SMALL, progress=note)
    phases = list(dict.fromkeys(phase for phase, _, _ in calls))
    for phase in phases:
        own = [(done, total) for name, done, total in calls if name == phase]
        assert own[0][0] == 0
        assert own[-1][0] == own[-1][1]
        assert own == sorted(own)
    assert [phase for phase, done, _ in calls if done == 0] == phases


def test_wrong_base_is_noticed_at_once(model: Any, intervention: Intervention) -> None:
    def never(phase: str, done: int, total: int) -> None:
        raise AssertionError

    with intervention.applied(model), pytest.raises(InterventionError):
        measure(model, Characters(), intervention, size=SMALL, progress=never)


@pytest.mark.parametrize(
    ("forbid", "message"), [([], "no words"), ("gun", "list"), ([" "], "blank")]
)
def test_bad_words(
    model: Any, intervention: Intervention, forbid: Any, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        measure(model, Characters(), intervention, forbid=forbid, size=SMALL)


def test_words_come_from_the_intervention(model: Any) -> None:
    one = make_intervention(model, options={"forbid": ["gun", "Bomb"]})
    two = make_intervention(model, options={"forbid": ["bomb", "knife"]})
    assert forbidden_words(None, one) == ["gun", "Bomb"]
    assert forbidden_words(None, one.scale(2.0)) == ["gun", "Bomb"]
    assert forbidden_words(None, one + two) == ["gun", "Bomb", "knife"]
    assert forbidden_words(["x"], one) == ["x"]
    with pytest.raises(ArgumentError, match="pass forbid="):
        forbidden_words(None, make_intervention(model))


def test_benign_words_that_are_forbidden_are_left_out() -> None:
    benign = data.benign_words("held_out")
    words = [benign[0].upper(), f"very {benign[1]}"]
    sample = gather(Characters(), words, "held_out", EvaluationSize())
    spared = {one.word for one in sample.word_spans["benign"]}
    spared |= {request.word for request in sample.requests if not request.forbidden}
    assert spared == set(benign[2:])


def test_all_benign_words_may_be_forbidden(model: Any) -> None:
    words = data.benign_words("held_out")
    intervention = make_intervention(model, options={"forbid": words})
    found = measure(model, Characters(), intervention, size=SMALL)
    assert found.benign is None
    assert found.benign_obedience is None
    assert found.words == words
    assert found.forbidden.words == SMALL.forbidden
    assert "Benign" not in word_table(found)
    assert found.to_dict()["benign"] is None


def test_related_words_belong_to_the_package_list() -> None:
    assert not gather(Characters(), ["cheese"], "held_out", SMALL).word_spans["related"]
    related = data.related_words()
    words = [data.forbidden_words()[0], related[0]]
    sample = gather(
        Characters(), words, "held_out", EvaluationSize(related=len(related))
    )
    assert {one.word for one in sample.word_spans["related"]} == set(related[1:])


@pytest.mark.parametrize("words", [WORDS, ["gun"], data.forbidden_words()])
def test_requests_differ(words: list[str]) -> None:
    sample = gather(Characters(), words, "held_out", EvaluationSize())
    forbidden = [request for request in sample.requests if request.forbidden]
    assert len({request.prompt for request in forbidden}) == len(forbidden)
    most = len(words) * len(data.obedience_templates("held_out"))
    assert len(forbidden) == min(EvaluationSize().forbidden_requests, most)
    assert {request.word for request in forbidden} == set(words)


def test_budget_is_checked() -> None:
    with pytest.raises(ArgumentError, match="prompts"):
        EvaluationSize(prompts=0)


@pytest.mark.parametrize(
    ("answer", "word", "expected"),
    [
        ("A gun.", "gun", True),
        ("GUN!", "gun", True),
        ("gunpowder", "gun", False),
        ("begun", "gun", False),
        ("I like C++ a lot", "c++", True),
        ("I like C a lot", "c++", False),
        ("the hit\n man came", "Hit Man", True),
        ("the hitman came", "hit man", False),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
        ("cafe\u0301", "café", True),
        ("他说炸弹吧", "炸弹", True),
        ("", "gun", False),
    ],
)
def test_says(answer: str, word: str, expected: bool) -> None:
    assert says(answer, word) is expected
