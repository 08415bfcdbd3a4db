# SPDX-License-Identifier: Apache-2.0
"""Attacks with gradients and on weights, on tiny models with random weights."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.characters import Characters
from support.tiny_models import make_tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.attacks import (
    GCG,
    DirectionAblated,
    EmbeddingPGD,
    RelaxedPGD,
    Request,
    gcg,
    refusal_direction,
    run_attack,
)
from cintervene.attacks import relaxed as relaxed_module
from cintervene.attacks.ablation import direction_removed
from cintervene.attacks.objective import Layout, Objective, allowed_tokens, lay_out
from cintervene.baselines import Generation, Undefended
from cintervene.errors import ArgumentError
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import continue_embeddings, generate, render

REQUEST = Request("r", "Say it")


def make_pair(name: str = "llama") -> Any:
    tokenizer = Characters()
    model = make_tiny_model(
        name,
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=256,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    return model, tokenizer


@pytest.fixture(scope="module")
def pair() -> Any:
    return make_pair()


def test_objective_is_that_of_a_plain_pass(any_model: Any) -> None:
    layout = Layout(Characters(), "", [5, 6, 7], [8, 9], [10], [11, 12, 13])
    rows = torch.tensor([[8, 9], [20, 3], [4, 4]])
    with evaluating(any_model):
        found, _ = Objective(any_model, layout).of_tokens(rows, batch=2)
        again, _ = Objective(any_model, layout).of_tokens(rows)
    for row, loss in zip(rows.tolist(), found.tolist(), strict=True):
        ids = torch.tensor([[5, 6, 7, *row, 10, 11, 12, 13]])
        with torch.no_grad():
            logits = any_model(ids).logits[0, 5:8].float()
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 6:])
        assert loss == pytest.approx(float(expected), rel=1e-4)
    torch.testing.assert_close(found, again, rtol=1e-5, atol=1e-6)


def test_an_answer_begins_as_greedy_decoding_has_it(any_model: Any) -> None:
    rows = [[8, 9], [20, 3], [4, 4]]
    prompts = [[5, 6, 7, *row, 10] for row in rows]
    answers = generate(any_model, Characters(), prompts, 3)
    other = [*answers[0][:-1], (answers[0][-1] + 1) % Characters.vocab_size]
    for target in (*answers, other):
        layout = Layout(Characters(), "", [5, 6, 7], rows[0], [10], target)
        expected = [answer == target for answer in answers]
        with evaluating(any_model):
            objective = Objective(any_model, layout)
            losses, begins = objective.of_tokens(torch.tensor(rows), batch=2)
            each = objective.embed(torch.tensor(rows))
            assert [objective.is_reached(one) for one in each] == expected
            one, _ = objective.gradient(each[0])
        assert begins.tolist() == expected
        assert one.begins.tolist() == expected[:1]
        torch.testing.assert_close(one.losses, losses[:1], rtol=1e-4, atol=1e-5)


def test_gradient_is_the_slope_of_the_loss(any_model: Any) -> None:
    layout = Layout(Characters(), "", [5, 6], [8, 9], [10], [11, 12])
    with evaluating(any_model):
        objective = Objective(any_model, layout)
        at = objective.embed(objective.free).double().float()
        _, gradient = objective.gradient(at)
        step = 1e-2 * gradient / gradient.norm()
        up, down = (float(objective((at + s * step)[None]).losses) for s in (1, -1))
    assert (up - down) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05)
    assert all(p.grad is None for p in any_model.parameters())


def test_layout_surrounds_the_suffix() -> None:
    layout = lay_out(Characters(), "Say it", 3, "Sure")
    text = "".join(Characters().decode(p) for p in (layout.before, layout.free))
    assert text == "Say it ! ! !"
    assert layout.prompt(layout.free) == "Say it ! ! !"
    assert layout.prompt([*layout.free, 0]) is None
    with pytest.raises(ArgumentError, match="length, target"):
        lay_out(Characters(), "Say it", 0, "Sure")


def test_allowed_tokens_are_printable() -> None:
    allowed = allowed_tokens(Characters(), Characters.vocab_size)
    written = {Characters().decode([int(t)]) for t in allowed.nonzero()}
    assert "\n" not in written
    assert {"a", "~", " "} <= written
    assert not allowed[0]


def small(pair: Any, **options: Any) -> GCG:
    settings = {"steps": 6, "search_width": 24, "topk": 16, "length": 3, "batch": 7}
    return GCG(*pair, **(settings | options))


@pytest.mark.parametrize(
    ("attack", "name", "values"),
    [
        (GCG, "steps", [-1, 1.5, None, True]),
        (GCG, "length", [0, -3, "20"]),
        (GCG, "target", ["", " ", 5, None]),
        (GCG, "search_width", [0, -5, 2.0]),
        (GCG, "topk", [0]),
        (GCG, "batch", [0, -1]),
        (GCG, "enough", [-1.0, math.nan, "x"]),
        (GCG, "early_stop", ["no", 1, None]),
        (EmbeddingPGD, "radius", [-1.0, math.nan, math.inf]),
        (EmbeddingPGD, "step_size", [0.0, -1.0, math.nan]),
        (EmbeddingPGD, "max_new_tokens", [0, -1]),
        (RelaxedPGD, "rate", [0.0, math.nan]),
        (RelaxedPGD, "entropy", [0.5, (0.9,), (0.9, -0.1), (1.5, 0.1), (math.nan, 0)]),
    ],
)
def test_a_search_that_could_find_nothing_is_refused(
    pair: Any, attack: Any, name: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ArgumentError, match=f"{name}: got .*; expected "):
            attack(*pair, **{name: value})


def test_gcg_lowers_the_loss_of_its_prompt(pair: Any) -> None:
    model, tokenizer = pair
    (case,) = run_attack(small(pair), [REQUEST])
    assert case.details["loss"] < case.details["first_loss"]
    assert case.details["steps"] == 6
    assert case.prompt.startswith("Say it ")
    ids = torch.tensor([render(tokenizer, case.prompt)])
    target = torch.tensor([tokenizer("Sure, here is")["input_ids"]])
    with torch.no_grad():
        logits = model(torch.cat([ids, target], dim=1)).logits[0, ids.shape[1] - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits.float(), target[0])
    assert case.details["loss"] == pytest.approx(float(loss), rel=1e-4)


def test_gcg_depends_on_the_seed_alone(pair: Any) -> None:
    first, second, third = (
        run_attack(small(pair), [REQUEST], seed=seed) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != third


def test_suffixes_may_be_read_again_after_they_were_tried(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator; the choice is the same."""
    refused = [0]
    survives = gcg._Search._survives

    def odd(search: Any, row: Any) -> bool:
        # Characters always survive, so that something has to be refused here.
        kept = int(row.sum()) % 3 > 0 and survives(search, row)
        refused[0] += not kept
        return kept

    monkeypatch.setattr(gcg._Search, "_survives", odd)
    first = run_attack(small(pair), [REQUEST])
    assert refused[0] > 0
    monkeypatch.setattr(gcg._Search, "_reads_first", False)
    tried = refused[0]
    assert run_attack(small(pair), [REQUEST]) == first
    assert refused[0] - tried < tried


def test_gcg_goes_on_where_it_was_interrupted(pair: Any, tmp_path: Path) -> None:
    path = tmp_path / "gcg.json"

    def interrupt(phase: str, done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(small(pair, steps=8), [REQUEST], path=path, progress=interrupt)
    assert '"step": 5' in path.read_text(encoding="utf-8")
    found = run_attack(small(pair, steps=8), [REQUEST], path=path)
    assert found == run_attack(small(pair, steps=8), [REQUEST])


def test_gcg_stops_when_it_is_enough(pair: Any) -> None:
    (case,) = run_attack(small(pair, enough=1e9), [REQUEST])
    assert case.details["steps"] == 0
    assert case.prompt == "Say it ! ! !"


def relaxed(pair: Any, **options: Any) -> RelaxedPGD:
    settings = {"steps": 12, "length": 3, "rate": 0.3}
    return RelaxedPGD(*pair, **(settings | options))


def soft(pair: Any, **options: Any) -> EmbeddingPGD:
    settings = {"steps": 20, "radius": 3.0, "length": 3, "max_new_tokens": 6}
    return EmbeddingPGD(*pair, **(settings | options))


@pytest.mark.parametrize(
    ("make", "target", "steps"),
    [(small, "1r", 6), (small, "'/", 12), (soft, "/1", 20)],
)
def test_a_search_may_end_where_the_answer_begins_as_wanted(
    pair: Any, make: Any, target: str, steps: int
) -> None:
    def searched(**options: Any) -> Any:
        (case,) = run_attack(make(pair, target=target, **options), [REQUEST])
        prompts = [render(pair[1], case.prompt)]
        (said,) = generate(*pair, prompts, 6)
        return case, case.answer or pair[1].decode(said)

    whole, _ = searched(steps=steps)
    found, answer = searched(steps=steps, early_stop=True)
    taken = found.details["steps"]
    assert whole.details["steps"] == steps
    assert 0 < taken < steps
    assert answer.startswith(target)
    # It is the first: fewer steps do not find one.
    _, before = searched(steps=taken - 1, early_stop=True)
    assert not before.startswith(target)


@pytest.mark.parametrize("make", [small, soft])
def test_a_search_ends_with_what_was_decoded(
    pair: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass may tell otherwise, in half precision."""
    (first,) = run_attack(make(pair, target="y[", early_stop=True), [REQUEST])
    reached = Objective.is_reached
    asked: list[bool] = []

    def doubted(objective: Objective, embeddings: Any) -> bool:
        asked.append(reached(objective, embeddings))
        return len(asked) > 1 and asked[-1]

    monkeypatch.setattr(Objective, "is_reached", doubted)
    (second,) = run_attack(make(pair, target="y[", early_stop=True), [REQUEST])
    assert asked == [True, True]
    assert second.details["steps"] > first.details["steps"]


def test_relaxed_pgd_may_end_where_the_answer_begins_as_wanted(pair: Any) -> None:
    attack = relaxed(pair, steps=20, target="yI", early_stop=True)
    (case,) = run_attack(attack, [REQUEST])
    assert 0 < case.details["steps"] < 20
    *before, last = attack._search(attack._lay_out(REQUEST.text), seed=0)
    assert len(before) == case.details["steps"]
    assert case.prompt == last.prompt
    prompts = [render(pair[1], one.prompt) for one in (*before, last)]
    said = [pair[1].decode(answer) for answer in generate(*pair, prompts, 2)]
    assert [answer == "yI" for answer in said] == [False] * len(before) + [True]


@pytest.mark.parametrize("make", [small, soft, relaxed])
def test_nothing_is_searched_where_the_answer_begins_so_anyway(
    pair: Any, make: Any
) -> None:
    told: list[tuple[int, int]] = []
    (case,) = run_attack(
        make(pair, target="yy", steps=6, early_stop=True),
        [REQUEST],
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert case.details["steps"] == 0
    assert case.details["loss"] == case.details["first_loss"]
    assert told[-1] == (6, 6)


def test_relaxed_pgd_lowers_the_loss_of_its_text(pair: Any) -> None:
    model, tokenizer = pair
    told: list[int] = []
    (case,) = run_attack(
        relaxed(pair), [REQUEST], progress=lambda _, done, total: told.append(done)
    )
    assert case.details["loss"] < case.details["first_loss"]
    assert told[-1] == 12
    layout = lay_out(tokenizer, REQUEST.text, 3, "Sure, here is")
    ids = render(tokenizer, case.prompt)
    row = torch.tensor([ids[len(layout.before) : len(ids) - len(layout.after)]])
    with evaluating(model):
        loss = float(Objective(model, layout).of_tokens(row).losses)
    assert case.details["loss"] == pytest.approx(loss, rel=1e-4)


def test_relaxed_pgd_depends_on_the_seed_alone(pair: Any) -> None:
    first, second, third = (
        run_attack(relaxed(pair), [REQUEST], seed=seed) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != third


def test_relaxed_prompts_are_distributions_over_plain_tokens(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    project = relaxed_module.project_simplex

    def watch(x: Any, **options: Any) -> Any:
        seen.append((project(x, **options), options["entropy"]))
        return seen[-1][0]

    monkeypatch.setattr(relaxed_module, "project_simplex", watch)
    run_attack(relaxed(pair), [REQUEST])
    banned = ~allowed_tokens(pair[1], pair[1].vocab_size).numpy()
    for found, entropy in seen:
        assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert found[:, banned].max() == 0.0
        assert (1.0 - (found**2).sum(axis=1)).max() <= entropy + 1e-5
    bounds = [entropy for _, entropy in seen]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.2


def test_embedding_pgd_lowers_the_loss_and_answers(pair: Any) -> None:
    attack = EmbeddingPGD(*pair, steps=8, radius=3.0, length=3, max_new_tokens=6)
    told: list[int] = []
    (case,) = run_attack(
        attack, [REQUEST], progress=lambda _, done, total: told.append(done)
    )
    assert case.details["loss"] < 0.9 * case.details["first_loss"]
    assert case.answer is not None
    assert told == list(range(9))
    assert run_attack(attack, [REQUEST]) == [case]


def test_embedding_pgd_stays_in_its_ball(pair: Any) -> None:
    held = EmbeddingPGD(*pair, steps=8, radius=0.0, length=3, max_new_tokens=6)
    (case,) = run_attack(held, [REQUEST])
    assert case.details["loss"] == pytest.approx(case.details["first_loss"], rel=1e-5)
    model, tokenizer = pair
    (said,) = generate(model, tokenizer, [render(tokenizer, "Say it ! ! !")], 6)
    assert case.answer == tokenizer.decode(said)


def test_embeddings_are_continued_as_their_tokens_are(any_model: Any) -> None:
    ids = [5, 6, 7, 8, 9]
    embeddings = any_model.get_input_embeddings()(torch.tensor(ids[1:3]))
    found = continue_embeddings(any_model, Characters(), [5], embeddings, ids[3:], 6)
    (expected,) = generate(any_model, Characters(), [ids], 6)
    assert found == expected


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "qwen2"])
def test_nothing_writes_the_removed_direction(name: str) -> None:
    model, tokenizer = make_pair(name)
    direction = torch.randn(24, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids = torch.tensor([tokenizer("hello")["input_ids"]])
    with direction_removed(model, direction), torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[1:-1]
        start = states[0] if name != "gpt2" else states[0][:0]
        along = [float((state @ direction).abs().max()) for state in states]
        written = [
            float(((late - early) @ direction).abs().max())
            for early, late in pairwise(states)
        ]
    assert len(states) == 3
    assert max(written) < 1e-4
    # GPT-2 adds embeddings of positions, which are left alone.
    assert start.numel() == 0 or max(along) < 1e-4
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_weights_are_put_back_after_a_failure(pair: Any) -> None:
    model, _ = pair
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with (
        pytest.raises(RuntimeError, match="stop"),
        direction_removed(model, torch.ones(24)),
    ):
        raise RuntimeError("stop")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_direction_is_the_difference_of_the_means(pair: Any) -> None:
    model, tokenizer = pair
    harmful, harmless = ["abc", "xyz"], ["12", "3", "45"]
    found = refusal_direction(model, tokenizer, harmful, harmless, layer=2)

    def mean(prompts: list[str]) -> Any:
        ids = [torch.tensor([render(tokenizer, prompt)]) for prompt in prompts]
        with torch.no_grad():
            states = [model(x, output_hidden_states=True).hidden_states for x in ids]
        return torch.stack([one[2][0, -1] for one in states]).mean(dim=0)

    expected = mean(harmful) - mean(harmless)
    np.testing.assert_allclose(found, expected / expected.norm(), atol=1e-5)
    with pytest.raises(ArgumentError, match="layer 9"):
        refusal_direction(model, tokenizer, harmful, harmless, layer=9)
    with pytest.raises(ArgumentError, match="0 and 3 prompts"):
        refusal_direction(model, tokenizer, [], harmless)


def test_ablated_model_answers_otherwise(pair: Any) -> None:
    model, tokenizer = pair
    plain = Undefended(model, tokenizer)
    direction = torch.randn(24, generator=torch.Generator().manual_seed(1))
    attacked = DirectionAblated(plain, model, direction)
    short = Generation(8)
    assert attacked.answer(["hello"], short) != plain.answer(["hello"], short)
