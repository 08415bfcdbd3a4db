# SPDX-License-Identifier: Apache-2.0
"""Forbidding words by neurons that open only where one is about to be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.saved_models import save_tiny_model

from cintervene import data, defend
from cintervene.activations.next_token import answer_nll
from cintervene.activations.scoring import divergence
from cintervene.errors import ArgumentError, ModelError
from cintervene.evaluate.words.measure import measure
from cintervene.methods.common.gated_mlp import GatedMLP, Neurons
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.common.output_metric import (
    OutputMetric,
    token_directions,
    token_statistics,
)
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.hinge import costs, method, places
from cintervene.methods.pcr.hinge.columns import ALIKE, KEPT, solve_columns
from cintervene.methods.pcr.hinge.detectors import fit_neurons
from cintervene.methods.pcr.hinge.groups import MOST_SHARED, Group, grouped
from cintervene.methods.pcr.hinge.method import hinged_mlp, most_neurons
from cintervene.methods.pcr.hinge.places import give_up
from cintervene.methods.pcr.hinge.rows import HingeRows
from cintervene.models import loading
from cintervene.models.parts import ModelParts
from cintervene.prompts.answerer import answerer
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.chat import render
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.prompts.target_spans import TargetSpan, answered, word_spans
from cintervene.prompts.word_sentences import (
    said_at,
    said_in,
    token_forms,
    word_sentences,
)


def _rows(hidden: int, words: int, seed: int = 0) -> HingeRows:
    """Rows in which each word has a direction where it begins, and one behind."""
    rng = np.random.default_rng(seed)
    level = np.zeros(hidden)
    level[0] = 3.0
    owners = np.repeat(np.arange(words), 8)

    def noise(count: int) -> Any:
        return level + 0.3 * rng.standard_normal((count, hidden))

    first = np.tile(np.arange(8) < 4, words)
    said = noise(len(owners))
    said[np.arange(len(owners)), owners + 1 + words * ~first] += 4.0
    return HingeRows(
        said=said.astype(np.float32),
        owners=owners,
        first=first,
        enough=np.ones(len(owners), dtype=bool),
        opening=np.tile(np.arange(8) < 2, words),
        tokens=[{5 + int(owner): 1.0} for owner in owners],
        near_tokens={20, 21, 22},
        other=noise(400).astype(np.float32),
        benign=noise(300).astype(np.float32),
        near_count=60,
        unsaid=np.ones(240, dtype=bool),
        said_states=torch.from_numpy(said).float(),
        benign_states=torch.from_numpy(noise(300)).float(),
    )


def test_neurons_open_at_their_words_and_nowhere_else(tiny_model: Any) -> None:
    parts = ModelParts.find(tiny_model("llama"))
    mlp = find_gated_mlp(parts.decoder, parts.n_layers - 1)
    rows = _rows(parts.decoder.hidden_size, 4)
    groups = grouped(rows, 5)
    assert [group.words for group in groups if group.begins] == [[0], [1], [2], [3]]
    (shared,) = [group for group in groups if not group.begins]
    assert sorted(shared.words) == [0, 1, 2, 3]
    neurons = fit_neurons(mlp, rows, groups, mlp.neurons(range(5)), lambda _: None)

    def opened(inputs: Any, eager: float) -> Any:
        """Activations where the neurons open so much earlier."""
        halves = neurons.projections(np.full(5, eager))
        made = Neurons(*halves, torch.zeros(5), torch.zeros(5))
        return mlp.activations(torch.from_numpy(inputs), made).numpy()

    own, near, other = (
        opened(part, 0.0) for part in (rows.said, rows.near, rows.other)
    )
    belongs = np.stack([group.of(rows) for group in groups], axis=1)
    assert (belongs.sum(axis=1) == 1).all()
    begins = np.array([group.begins for group in groups])
    assert own[:, begins][belongs[:, begins]].min() > 0.3
    # They share their neuron, and it opens later.
    assert np.mean(own[:, ~begins][belongs[:, ~begins]] > 0.3**2) > 0.7
    # A neuron's activation is the square of what it reads, which is about 1.
    assert np.sqrt(np.median(own[belongs])) == pytest.approx(1.0, abs=0.1)
    for elsewhere, most in ((own[~belongs], 0.15), (near, 0.05), (other, 0.05)):
        assert np.mean(elsewhere > 0.1) < most
    # Neurons that are to open earlier do.
    earlier = opened(rows.said, 0.5)[belongs]
    gained = np.sqrt(earlier.clip(0.0)) - np.sqrt(own[belongs].clip(0.0))
    assert gained.mean() == pytest.approx(0.5, abs=0.1)
    assert np.quantile(gained, 0.1) > 0.2


def test_words_share_neurons_where_these_are_few() -> None:
    rows = _rows(16, 7)
    for most in range(1, 12):
        groups = grouped(rows, most)
        assert len(groups) <= most
        begin = [word for group in groups if group.begins for word in group.words]
        assert sorted(begin) == list(range(7))
        longer = [word for group in groups if not group.begins for word in group.words]
        assert sorted(longer) == (list(range(7)) if most > 2 else [])


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(9, [4, 3]), (10, [3, 3, 1]), (11, [2, 2, 2, 1]), (14, [1] * 7), (50, [1] * 7)],
)
def test_where_words_go_on_they_share_no_more_than_they_must(
    most: int, sizes: list[int]
) -> None:
    groups = grouped(_rows(16, 7), most)
    assert [len(group.words) for group in groups if not group.begins] == sizes
    assert [group.words for group in groups if group.begins] == [[n] for n in range(7)]


def test_of_long_lists_neurons_are_where_one_is_enough() -> None:
    rows = _rows(96, 40)
    rows = replace(rows, enough=(rows.owners % 2 == 0) == rows.first)
    # With 14 and 13 for beginnings, three words share one at most, or more do.
    short, long = (grouped(rows, most) for most in (20, 19))
    for begins, words in ((True, range(0, 40, 2)), (False, range(1, 40, 2))):
        of_short, of_long = (
            sorted(w for group in groups if group.begins == begins for w in group.words)
            for groups in (short, long)
        )
        assert of_short == list(range(40))
        assert of_long == list(words)
    assert len(long) <= 19
    assert all(rows.enough[group.of(rows)].all() for group in long)
    assert all(group.of(rows).any() for group in long)


def test_words_that_begin_alike_share_first() -> None:
    rows = _rows(16, 6)
    begins = (rows.owners == 4) & rows.first
    rows.said[begins] = rows.said[(rows.owners == 1) & rows.first] + 0.01
    alone = {(0,), (2,), (3,), (5,)}
    groups = [group for group in grouped(rows, 7) if group.begins]
    assert {tuple(sorted(group.words)) for group in groups} == alone | {(1, 4)}


@pytest.mark.parametrize(("words", "most"), [(40, 30), (40, 9), (13, 4), (9, 1)])
def test_no_group_grows_to_much_more_than_the_others(words: int, most: int) -> None:
    groups = [group for group in grouped(_rows(96, words), most) if group.begins]
    sizes = [len(group.words) for group in groups]
    count = most - int(most * MOST_SHARED)
    assert sum(sizes) == words
    assert len(sizes) <= max(1, count)
    assert max(sizes) <= 2 * -(-words // max(1, count))


def test_given_answers_are_what_texts_depend_on() -> None:
    plain = PCRConfig(forbid=["bomb"])
    pairs = [("How are you?", "Fine."), ("Who is there?", "Nobody.")]
    given = replace(plain, answers=pairs)
    assert plain.texts != given.texts
    assert given.texts == replace(given, strength=3.0).texts
    assert given.texts != replace(given, answers=pairs[::-1]).texts


def test_neurons_keep_to_the_largest_rank() -> None:
    mlp: Any = SimpleNamespace(down=SimpleNamespace(d_in=2000))
    found = {
        options: most_neurons(mlp, PCRConfig(forbid=["bomb"], **dict(options)))
        for options in (
            (),
            (("max_rank", 16),),
            (("max_rank", 1),),
            (("max_neurons", 300),),
            (("max_neurons", 300), ("max_rank", 1000)),
        )
    }
    assert list(found.values()) == [100, 8, 1, 128, 300]


def test_long_lists_may_change_more_neurons() -> None:
    mlp: Any = SimpleNamespace(down=SimpleNamespace(d_in=1200))
    most = {
        count: most_neurons(mlp, PCRConfig(forbid=[f"w{n}" for n in range(count)]))
        for count in (1, 80, 100, 120, 133, 134, 500)
    }
    assert most == {1: 60, 80: 60, 100: 75, 120: 90, 133: 99, 134: 100, 500: 100}


def test_columns_lower_their_tokens_by_a_nat_at_least_cost(tiny_model: Any) -> None:
    parts = ModelParts.find(tiny_model("llama"))
    down = find_gated_mlp(parts.decoder, parts.n_layers - 1).down
    rows = _rows(parts.decoder.hidden_size, 3)
    statistics = token_statistics(parts.unembedding, rows.benign_states)
    metric = OutputMetric(statistics.fisher_at(down), 1e-2)
    groups = [Group([0, 1], True), Group([2], True)]
    columns = solve_columns(rows, groups, down, parts.unembedding, statistics, metric)
    assert columns.certified == 2
    scale = float(rows.said_states.square().mean(dim=1).sqrt().mean())
    directions = parts.unembedding.directions([5, 6, 7]).double().numpy()
    directions -= statistics.mean_direction(parts.unembedding, down).double().numpy()
    nats = columns.displacements @ directions.T / scale
    np.testing.assert_allclose(nats[0, :2], -1.0, atol=1e-6)
    assert nats[1, 2] == pytest.approx(-1.0, abs=1e-6)
    # Of one half-space the least is known: along the direction in the metric.
    one = metric.directions(directions[2:])[0]
    assert columns.costs[1] == pytest.approx(scale**2 / (one @ one), rel=1e-6)


def test_columns_leave_the_tokens_of_benign_words(tiny_model: Any) -> None:
    parts = ModelParts.find(tiny_model("llama"))
    down = find_gated_mlp(parts.decoder, parts.n_layers - 1).down
    free = _rows(parts.decoder.hidden_size, 3)
    statistics = token_statistics(parts.unembedding, free.benign_states)
    metric = OutputMetric(statistics.fisher_at(down), 1e-2)
    near = [*range(8, 40)]
    groups = [Group([word], True) for word in range(3)]
    scale = float(free.said_states.square().mean(dim=1).sqrt().mean())
    directions = token_directions(near, down, parts.unembedding, statistics)
    falls, costs = [], []
    for rows in (free, replace(free, near_tokens={6, *near})):
        found = solve_columns(rows, groups, down, parts.unembedding, statistics, metric)
        assert found.certified == 3
        falls.append(-found.displacements @ directions.T / scale)
        costs.append(found.costs)
    limited = falls[0] < ALIKE
    assert (falls[0][limited] > KEPT + 0.01).any()
    assert falls[1][limited].max() <= KEPT + 1e-6
    assert (costs[1] >= costs[0] * (1 - 1e-9)).all()


def test_what_neurons_did_is_made_up_for(tiny_model: Any) -> None:
    parts = ModelParts.find(tiny_model("llama"))
    mlp = find_gated_mlp(parts.decoder, parts.n_layers - 1)
    width, hidden = mlp.down.d_in, parts.decoder.hidden_size
    rng = np.random.default_rng(1)
    # Fewer directions than neurons: the others can stand in for any of them.
    inputs = rng.standard_normal((200, 3)) @ rng.standard_normal((3, hidden))
    inputs = torch.from_numpy(inputs).float()
    states = torch.from_numpy(rng.standard_normal((200, hidden))).float()
    given = give_up(mlp, parts.unembedding, inputs, states, 4)
    assert len(set(given.places)) == 4
    activations = mlp.activations(inputs, mlp.neurons(range(width))).double().numpy()
    lost = activations[:, given.places] @ mlp.columns(given.places).double().numpy()
    restored = activations @ given.made_up.matrix().T
    assert np.linalg.norm(restored - lost) < 0.5 * np.linalg.norm(lost)
    assert not given.made_up.matrix()[:, given.places].any() or np.allclose(
        given.made_up.right[:, given.places], 0.0
    )


def _benign(model: Any, count: int) -> tuple[ModelParts, GatedMLP, Any, Any]:
    """Parts of a model, its last MLP, what enters it, and what the final norm reads."""
    parts = ModelParts.find(model)
    mlp = find_gated_mlp(parts.decoder, parts.n_layers - 1)
    rng = np.random.default_rng(2)
    shape = 2, count, parts.decoder.hidden_size
    inputs, states = torch.from_numpy(rng.standard_normal(shape)).float()
    return parts, mlp, inputs, states


def test_what_a_neuron_costs_is_the_divergence_of_what_the_others_miss(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, mlp, inputs, states = _benign(tiny_model("llama"), 150)
    size, head = mlp.down.d_in, parts.unembedding
    vocabulary = len(head.weight)
    monkeypatch.setattr(costs, "TOKENS", vocabulary)
    # Of which there are several, the last of another size.
    monkeypatch.setattr(costs, "WIDENED", vocabulary // 2 - 1)
    monkeypatch.setattr(costs, "LEAST", 0.0)
    which = [3, 0, 7]
    missed = np.random.default_rng(3).standard_normal((3, size))
    activations = mlp.activations(inputs, mlp.neurons(range(size))).double().numpy()
    lost = activations @ missed.T
    with torch.no_grad():
        odds = torch.softmax(head.logits(states).double(), dim=-1).numpy()
    directions = head.directions(range(vocabulary)).double().numpy()
    logits = directions @ mlp.columns(which).double().numpy().T
    mean = odds @ logits
    variance = odds @ logits**2 - mean**2
    divisors = np.square(states.double().numpy()).mean(axis=1, keepdims=True)
    each = lost**2 * variance / divisors / 2
    for doubt in (0.0, 3.0):
        monkeypatch.setattr(costs, "DOUBT", doubt)
        found = costs.costs_alone(mlp, head, inputs, states, which, missed)
        error = np.sqrt(np.square(each).sum(axis=0)) / len(each)
        np.testing.assert_allclose(found, each.mean(axis=0) + doubt * error, 1e-3)


def test_neurons_are_given_up_for_less_divergence_than_by_their_lengths(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, mlp, inputs, states = _benign(tiny_model("llama"), 400)

    def drift() -> float:
        given = give_up(mlp, parts.unembedding, inputs, states, 6)
        every = mlp.neurons(range(mlp.down.d_in))
        activations = mlp.activations(inputs, every).double().numpy()
        columns = mlp.columns(given.places).double().numpy()
        shift = activations @ given.made_up.matrix().T
        shift -= activations[:, given.places] @ columns
        changed = states + torch.from_numpy(shift).float()
        return float(divergence(parts.unembedding, states, changed).mean())

    ours = drift()

    def lengths(mlp: GatedMLP, *others: Any) -> Any:
        return mlp.columns(others[3]).square().sum(dim=1).double().numpy()

    monkeypatch.setattr(places, "costs_alone", lengths)
    assert 0.0 < ours < drift()


def test_where_no_token_can_move_the_shortest_columns_are_given_up(
    tiny_model: Any,
) -> None:
    parts, mlp, inputs, states = _benign(tiny_model("llama"), 50)
    every = list(range(mlp.down.d_in))
    nothing = np.zeros((len(every), len(every)))
    found = costs.costs_alone(mlp, parts.unembedding, inputs, states, every, nothing)
    expected = mlp.columns(every).double().square().sum(dim=1).numpy()
    np.testing.assert_allclose(found, expected, 1e-6)


def test_where_the_hinge_is_used(tiny_model: Any) -> None:
    llama = ModelParts.find(tiny_model("llama"))
    last = llama.n_layers - 1

    def layer(parts: ModelParts, **options: Any) -> int | None:
        mlp = hinged_mlp(parts, PCRConfig(**{"forbid": ["bomb"], **options}))
        return None if mlp is None else mlp.block.layer

    assert layer(llama) == last
    assert layer(llama, hinge="off") is None
    assert layer(llama, layers=[1]) is None
    assert layer(llama, matrix="o_proj") is None
    assert layer(llama, concepts="activation") is None
    assert layer(llama, hinge="on", layers=[1]) == 1
    gpt2 = ModelParts.find(tiny_model("gpt2"))
    assert layer(gpt2) is None
    with pytest.raises(ModelError, match="gated MLP"):
        layer(gpt2, hinge="on")
    gemma = ModelParts.find(tiny_model("gemma3"))
    assert layer(gemma) is None
    with pytest.raises(ModelError, match="a norm follows this MLP"):
        layer(gemma, hinge="on")
    with pytest.raises(ArgumentError, match="hinge"):
        PCRConfig(forbid=["bomb"], hinge="yes")


class Letters:
    """A tokenizer whose tokens are letters."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def test_where_a_word_is_said_in_a_text() -> None:
    text = "a bomb, Bomb"
    ids = Letters()(text)["input_ids"]
    found = list(said_in(token_forms(Letters(), "bomb"), ids))
    assert [(text[at : at + size]) for at, size in found] == [
        " bomb", "bomb", " Bomb", "Bomb"
    ]  # fmt: skip


def test_of_words_that_begin_alike_the_longest_is_said() -> None:
    text = "the bomb squad, a bomb, squads"
    words = ("squad", "bomb", "bomb squad")
    span = TargetSpan((0, *Letters()(text)["input_ids"]), 1)
    said = said_at(token_forms(Letters(), *words), span)
    marked = "".join(x if at else "." for x, at in zip(text, said, strict=True))
    assert marked == "... bomb squad... bomb. squad."
    # As if each had been looked for by itself.
    each = [said_at(token_forms(Letters(), word), span) for word in words]
    assert said == [any(of_place) for of_place in zip(*each, strict=True)]


def test_less_is_asked_where_the_first_crosses_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loading.load(save_tiny_model(tmp_path / "own"))
    monkeypatch.setattr(method, "FIRST", 200.0)
    few = CalibrationSize(
        starting=1, later=1, contrast_words=4, text_words=4, prompts=12,
        tune_prompts=4, answer_tokens=8, sentences=0,
    )  # fmt: skip

    def points(max_kl: float) -> tuple[list[dict[str, Any]], bool]:
        config = PCRConfig(
            forbid=["bomb", "knife fight"], calibration=few, min_effect=1e-9,
            max_kl=max_kl, max_benign_loss=1e9,
        )  # fmt: skip
        made = defend(model, tokenizer, config)
        return made.metrics["sweep"], made.metrics["within_limits"]

    (free, *_), _ = points(1e9)
    # Most of it is from the neurons given up, in a model that has few.
    limit = 0.95 * free["kl"]
    tried, kept = points(limit)
    assert kept
    assert tried[0]["kl"] == free["kl"]
    drifts = [point["kl"] for point in tried]
    first = next(n for n, drift in enumerate(drifts) if drift <= limit)
    assert first > 0
    assert drifts[: first + 1] == sorted(drifts[: first + 1], reverse=True)
    (chosen,) = [point for point in tried if point["chosen"]]
    assert chosen["kl"] <= limit


def test_where_a_neuron_is_enough(tiny_model: Any) -> None:
    parts = ModelParts.find(tiny_model("llama"))
    mlp = find_gated_mlp(parts.decoder, parts.n_layers - 1)
    # Of a phrase of four tokens the last two are its last part.
    spans = {
        "two tokens": TargetSpan((3, 4, 5, 6), 2, "w", weights=(1.0,) * 2),
        "one token": TargetSpan((3, 4, 5), 2, "w", weights=(1.0,)),
        "phrase": TargetSpan(
            (3, 4, 7, 8, 9, 10), 2, "p q", weights=(1.0,) * 4, before_last_part=2
        ),
    }
    calibration = Calibration(
        [*spans.values()], [TargetSpan((3, 4, 9), 2)], [TargetSpan((3, 8, 9), 1)],
        [], [], [],
    )  # fmt: skip
    words = ["w", "p q"]
    rows, _ = HingeRows.gather(parts, mlp, words, calibration, lambda _: None)
    assert rows.owners.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert rows.first.tolist() == [True, False, True, True, False, False, False]
    assert rows.enough.tolist() == [False, True, True, False, False, True, True]


@pytest.mark.model
def test_what_a_model_writes_of_a_word_is_taken_alone_too(smollm2: Any) -> None:
    model, tokenizer = smollm2
    words = ["bomb", "theft", "rifle"]
    templates = ["Write two sentences about the word {word}.", "Say {word}!"]
    answer = answerer(model, tokenizer)
    spans = word_sentences(answer, tokenizer, words, templates, 2, 24, lambda _: None)
    chat = [span for span in spans if "<|im_start|>" in tokenizer.decode(span.ids)]
    alone = [span for span in spans if span not in chat]
    assert len(chat) >= 3
    assert 0 < len(alone) <= len(chat)
    for span in spans:
        assert tokenizer.decode(span.targets).strip().lower() == span.word
        assert len(span.weights) == len(span.targets)
    for span in alone:
        longer = [one.ids for one in chat if one.word == span.word]
        assert any(ids[-len(span.ids) :] == span.ids for ids in longer)
        assert span.start > 1
        assert span.later


@pytest.mark.model
def test_six_words_are_unsaid_at_little_drift(smollm2: Any) -> None:
    model, tokenizer = smollm2
    words = data.forbidden_words()[::17]
    made = defend(model, tokenizer, forbid=words, calibration="small")
    assert made.options["hinge"] == "on"
    # One where each begins, and one where it goes on, as neurons are plenty.
    assert made.metrics["neurons"] == 2 * len(words)
    assert made.metrics["certified"] == 2 * len(words)
    assert {name.split(".")[-2] for name in made.edits} == {
        "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    size = EvaluationSize.named("small")
    found = measure(model, tokenizer, made, size=size)
    ratio = found.forbidden.all_tokens.together.effect.value
    assert ratio > 20.0
    assert found.drift.kl.value < 0.02


@pytest.mark.model
def test_phrases_are_unsaid_and_their_words_are_not(smollm2: Any) -> None:
    model, tokenizer = smollm2
    phrases = ["rich tapestry", "it is important to note", "delve into", "game changer"]
    made = defend(model, tokenizer, forbid=phrases, calibration="small")
    assert made.options["hinge"] == "on"
    assert made.metrics["within_limits"]
    said = word_spans(
        tokenizer, phrases, data.obedience_templates("held_out"),
        data.answer_prefixes("held_out"), starting=2, later=2,
    )  # fmt: skip
    # The same words where they make no such phrase.
    parts = [
        ("What colours are in the picture?", "It is rich in red and gold."),
        ("What hangs on the wall?", "A tapestry with a unicorn hangs there."),
        ("What did the teacher write?", "She wrote a short note to the parents."),
        ("What do they play?", "It is a game for two, and each has ten cards."),
    ]
    apart = answered(
        [render(tokenizer, prompt) for prompt, _ in parts],
        [tokenizer(answer)["input_ids"] for _, answer in parts],
    )
    before = _nats(model, [*said, *apart])
    with made.applied(model):
        risen = _nats(model, [*said, *apart]) - before
    # As little text as this leaves one of them (2 x) far behind the others (170 x).
    by_phrase = risen[: len(said)].reshape(len(phrases), 4).mean(axis=1)
    assert by_phrase.mean() > np.log(20.0)
    assert by_phrase.min() > np.log(1.5)
    assert risen[len(said) :].max() < np.log(1.1)


def _nats(model: Any, spans: list[TargetSpan]) -> Any:
    """Mean negative log-likelihood of a token of each answer."""
    prompts = [one.ids[: one.start] for one in spans]
    found = answer_nll(ModelParts.find(model), prompts, [one.targets for one in spans])
    return np.array([nats.mean() for nats in found])
