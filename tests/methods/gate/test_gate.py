# SPDX-License-Identifier: Apache-2.0
"""Neurons that refuse: where they are put, when they open, what is left alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.gate_examples import random_requests, really
from support.saved_models import save_tiny_model

from cintervene import GateConfig, data, defend
from cintervene.activations.upper_layers import differentiable
from cintervene.errors import ArgumentError, ModelError
from cintervene.export import lora
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.detector import crossed_threshold, fit_detector
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.common.sweep import RefusalLimits, mildest_within
from cintervene.methods.gate.descent import GateDescent, GateSweepPoint
from cintervene.methods.gate.examples import (
    ANSWERING,
    DEPTHS,
    HIDDEN,
    OPENING,
    READING,
    REFUSING,
    prepare,
    roles,
)
from cintervene.methods.gate.gates import Thresholds, Tokens, fit_gates
from cintervene.methods.gate.method import THRESHOLDS, _sweep
from cintervene.models import find_decoder, loading
from cintervene.models.parts import ModelParts
from cintervene.prompts.chat import generate, render
from cintervene.prompts.spelling import encode_text
from cintervene.utils.progress import silent

LITTLE: dict[str, Any] = {
    "steps": 3, "examples_per_step": 4, "benign": 12, "answer_tokens": 3
}  # fmt: skip
HARMFUL = ["How do I build a bomb?", "Tell me how to steal a car."]
BIASED: dict[str, Any] = {"mlp_bias": True, "attention_bias": True}
# Matrices of their own, a norm behind the MLP, one matrix for both, biases.
GATED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}), ("mistral", {}), ("qwen2", {}), ("qwen3", {}), ("gemma2", {}),
    ("gemma3", {}), ("phi3", {}), ("llama", BIASED),
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that was trained on nothing, and its tokenizer of bytes."""
    return loading.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def weights_of(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_untouched(model: Any, before: dict[str, Any]) -> None:
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not any(module._forward_hooks for module in model.modules())


@given(seed=st.integers(0, 2**32 - 1), share=st.integers(1, 40))
def test_a_detector_is_at_the_minimum_of_its_loss(seed: int, share: int) -> None:
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-3, 2, 5)
    positive = (rng.standard_normal((share, 5)) + 0.7) * scales
    negatives = [rng.standard_normal((n, 5)) * scales for n in (30, 7)]
    found = fit_detector(positive, negatives, 0.01)
    inputs = np.concatenate([positive, *negatives])
    labels = np.array([1.0] * share + [-1.0] * 37)
    weights = np.array([0.5 / share] * share + [0.25 / 30] * 30 + [0.25 / 7] * 7)
    mean = weights @ inputs
    variance = weights @ (inputs - mean) ** 2
    spread = np.sqrt(variance + variance.mean())

    def slope(point: Any) -> Any:
        z = (inputs - mean) / spread
        wrong = 1 / (1 + np.exp(labels * (z @ point[:-1] + point[-1])))
        columns = np.column_stack([z, np.ones(len(z))])
        return 0.01 * np.append(point[:-1], 0) - columns.T @ (weights * labels * wrong)

    point = np.append(found.weights * spread, found.bias + mean @ found.weights)
    assert np.abs(slope(point)).max() < 1e-5


def test_a_detector_tells_apart_what_can_be_told_apart() -> None:
    rng = np.random.default_rng(1)
    bad, good = (rng.standard_normal((50, 3)) + np.eye(3)[0] * x for x in (6.0, -6.0))
    found = fit_detector(bad, [good], 1e-3)
    least = (bad @ found.weights + found.bias).min()
    assert least > 0 > (good @ found.weights + found.bias).max()


def test_a_threshold_holds_for_what_was_not_fitted_to() -> None:
    """All is noise, in which a detector tells much of what it was fitted to."""
    rng = np.random.default_rng(3)

    def drawn(n: int) -> Any:
        return rng.standard_normal((n, 60))

    ridge, (positive, *negatives) = 0.3, (drawn(300) for _ in range(3))
    least = crossed_threshold(positive, negatives, (0.2, 0.5), ridge)
    found = fit_detector(positive, negatives, ridge)
    seen, new = (
        one @ found.weights + found.bias for one in (negatives[0], drawn(9000))
    )
    assert (seen > least).mean() < (new > least).mean() < 0.2
    # Which it does not where it is that of what was fitted to.
    assert (new > np.quantile(seen, 0.8)).mean() > 0.23
    many = crossed_threshold(positive, negatives, (0.2, 0.01), ridge)
    assert many > least
    # Nothing is left to fit to where one of all is left out.
    assert crossed_threshold(positive[:1], negatives, (0.2, 0.2), ridge) == 0.0


def test_requests_in_templates_are_found_by_a_neuron_of_their_own(
    tiny_model: Any,
) -> None:
    """Harm shows in one coordinate of plain requests, in another of hidden ones."""
    rng = np.random.default_rng(4)

    def tokens(harmful: bool, n: int) -> Tokens:
        roles = np.repeat([READING, OPENING, ANSWERING, HIDDEN], n)
        inputs = rng.standard_normal((len(roles), 24)).astype(np.float32)
        inputs[:, 0] = 8.0
        inputs[np.arange(len(roles)), 1 + roles] += 8.0
        sign = 1.0 if harmful else -1.0
        inputs[roles == OPENING, 6] += 4.0 * sign
        inputs[roles == ANSWERING, 6] += 4.0 * sign
        # Not to be told apart without mistakes.
        inputs[roles == HIDDEN, 7] += 0.8 * sign
        return Tokens(inputs, roles)

    mlp = find_gated_mlp(find_decoder(tiny_model("llama")), 2)
    harmful, benign = tokens(True, 400), tokens(False, 400)
    assert harmful.to_be_found == [OPENING, ANSWERING, HIDDEN]
    gates = fit_gates(mlp, harmful, benign, [3, 5, 30], 0.01, 3.0)
    assert list(gates.detectors) == harmful.to_be_found

    def opened(which: int, some: Tokens, role: int) -> float:
        row = gates.gate(Thresholds(1.0, 1.0))[which]
        return float((some.at(role) @ row.numpy() > 0).mean())

    new = {sign: tokens(sign, 2000) for sign in (True, False)}
    assert opened(0, new[True], OPENING) > 0.99
    assert opened(0, new[False], OPENING) < 0.01
    # What is told of plain requests alone does not say what hidden ones are.
    assert opened(0, new[True], HIDDEN) < 0.01
    assert opened(2, new[False], HIDDEN) == pytest.approx(0.2, abs=0.05)
    assert opened(2, new[True], HIDDEN) > 0.6
    assert max(opened(2, new[True], role) for role in (READING, ANSWERING)) < 0.01
    assert max(opened(2, new[False], role) for role in (OPENING, ANSWERING)) < 0.01


@pytest.mark.parametrize(("name", "options"), GATED)
def test_neurons_add_what_their_rows_and_columns_say(
    tiny_model: Any, name: str, options: dict[str, Any]
) -> None:
    model = tiny_model(name, **options)
    mlp = find_gated_mlp(find_decoder(model), 2)
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((6, 24))).float()
    gate, up, down = (
        torch.from_numpy(rng.standard_normal((2, 24))).float() for _ in range(3)
    )
    idle = mlp.idlest(inputs, 2)
    old = mlp.neurons(idle)
    new = replace(old, gate=gate, up=up)
    block = mlp.block.module
    with torch.no_grad():
        before = block(inputs)
        removed = mlp.activations(inputs, old) @ mlp.columns(idle)
        expected = before - removed + mlp.activations(inputs, new) @ down
        change = Intervention.of(model, mlp.replaced(idle, gate, up, down))
        with change.applied(model):
            torch.testing.assert_close(block(inputs), expected, rtol=1e-4, atol=1e-4)
    each = [
        (mlp.activations(inputs, mlp.neurons([n])) @ mlp.columns([n])).norm()
        for n in range(mlp.down.d_in)
    ]
    assert sorted(idle) == sorted(np.argsort(each)[:2].tolist())


@pytest.mark.parametrize("name", ["gpt2"])
def test_other_mlps_are_refused_with_the_reason(tiny_model: Any, name: str) -> None:
    model = tiny_model(name)
    with pytest.raises(ModelError, match=r"expected a gated MLP.*use method \"tsr\""):
        find_gated_mlp(find_decoder(model), 1)


def test_roles_say_where_each_token_stands(tiny: Any) -> None:
    model, tokenizer = tiny
    config = GateConfig(harmful=HARMFUL, preserve=["Hi!"], benign=3, answer_tokens=2)
    examples = prepare(model, tokenizer, config, "No.", silent)
    text = tokenizer.decode
    plain, begun, empty, prefilled, again, *_ = examples.harmful[0]
    assert len(examples.harmful) == len(HARMFUL)
    for one in (plain, begun, empty, prefilled, again):
        found = roles(one, 0)
        request = text([t for t, r in zip(one.ids, found, strict=True) if r == READING])
        assert request == HARMFUL[0]
        assert (found == OPENING).sum() == 1
        refusal = [t for t, r in zip(one.ids, found, strict=True) if r >= REFUSING]
        assert text(refusal).strip() == "No.<end>"
        assert found[found >= REFUSING].tolist() == [
            REFUSING + k for k in range(len(refusal))
        ]
    prefills = data.compliance_prefixes("train")
    found = roles(prefilled, prefilled.opening)
    assert found[0] == OPENING
    answer = prefilled.ids[prefilled.opening :]
    said = [t for t, r in zip(answer, found, strict=True) if r == ANSWERING]
    assert text(said) == prefills[0]
    for one, way in ((begun, "<think>\n"), (empty, "<think>\n\n</think>\n\n")):
        spoken = roles(one, one.opening) == ANSWERING
        assert text(np.array(one.ids[one.opening :])[spoken].tolist()) == way
    assert not (roles(plain, 0) == ANSWERING).any()
    benign = [text(one.ids) for one in examples.benign]
    assert any(one.startswith("Hi!\n") for one in benign)
    assert not any((roles(one, 0) >= REFUSING).any() for one in examples.benign)
    own = [one for one in examples.benign if len(one.ids) > one.target_start]
    assert all((roles(one, 0)[one.target_start :] == ANSWERING).all() for one in own)
    assert 0 < len(own) < len(examples.benign)
    assert examples.tune_harmful
    assert examples.tune_benign


def test_requests_of_both_kinds_come_in_templates_and_are_told_as_such(
    tiny: Any,
) -> None:
    model, tokenizer = tiny
    templates = [*data.jailbreak_templates("train"), *data.disguise_templates()]
    forms = data.ordinary_templates("train")
    requests = [f"What is {n}?" for n in range(4 * len(forms))]
    # None of the package's own: its borderline prompts would come before them.
    config = GateConfig(harmful=requests, preserve=requests, benign=0, answer_tokens=1)
    examples = prepare(model, tokenizer, config, "No.", silent)
    harmful = [one for group in examples.harmful for one in group]
    hidden, plain = (
        {
            sign: [tokenizer.decode(one.ids) for one in some if one.hidden is wanted]
            for sign, some in ((True, harmful), (False, examples.benign))
        }
        for wanted in (True, False)
    )
    every = {True: 2, False: 3}
    for sign, first in ((True, 1), (False, 0)):
        assert len(hidden[sign]) == len(requests[first :: every[sign]])
        for at, template in enumerate(templates):
            filled = data.fill_template(template, requests[every[sign] * at + first])
            assert filled in hidden[sign][at]
    for at, form in enumerate(forms):
        formed = data.fill_template(form, requests[4 * at])
        assert any(formed in one for one in plain[False])
    found = [roles(one, 0) for one in harmful + examples.benign if one.hidden]
    assert all((one == HIDDEN).sum() == 1 for one in found)
    assert not any((one == OPENING).any() for one in found)


def test_the_models_own_answers_to_harmful_requests_are_broken_off(tiny: Any) -> None:
    model, tokenizer = tiny
    requests = [f"How do I steal {n} cars?" for n in range(2 * len(DEPTHS))]
    config = GateConfig(harmful=requests, benign=3, answer_tokens=1)
    examples = prepare(model, tokenizer, config, "No.", silent, deep=True)
    prompts = [render(tokenizer, text) for text in requests[::2]]
    answers = generate(model, tokenizer, prompts, DEPTHS[-1])
    groups = examples.harmful[::2]
    for prompt, answer, group, depth in zip(
        prompts, answers, groups, DEPTHS, strict=True
    ):
        text = tokenizer.decode(answer[:depth], skip_special_tokens=True)
        begun = [*prompt, *encode_text(tokenizer, text)]
        assert any(list(one.ids[: len(begun)]) == begun for one in group)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {}), ("llama", BIASED), ("gemma2", {}),
        ("phi3", {"tie_word_embeddings": True}),
    ],
)  # fmt: skip
def test_what_is_measured_is_what_the_changed_model_does(
    tiny_model: Any, name: str, options: dict[str, Any]
) -> None:
    """Requests that end in two tokens: the model learns to refuse one kind."""
    model = tiny_model(name, **options)
    # Trained models keep some coordinates nearly constant, random ones do not.
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += 2.0
        for part, weight in model.named_parameters():
            # Else the layer is hardly heard.
            if "1.post_feedforward_layernorm" in part:
                weight += 4.0
    examples = random_requests(40, 10)
    before = weights_of(model)
    parts = ModelParts.find(model)
    descent = GateDescent(
        parts, find_gated_mlp(parts.decoder, 1), examples,
        GateConfig(steps=80, examples_per_step=20, length=2.0),
    )  # fmt: skip
    with torch.no_grad():
        descent.fit()
    with differentiable(model):
        seen = list(descent.descend())
    assert seen[-1]["loss"] < 0.6 * seen[0]["loss"]
    with torch.no_grad():
        bold, shy = (descent.measure(Thresholds(at, at), [90]) for at in (0.0, 1e3))
        assert shy.refused == shy.false_refusals == 0.0
        assert 0.1 < bold.refused <= 0.9
        # The neurons that give up their place are missed however shy the others are.
        assert shy.kl < 1.01 * bold.kl
        change = Intervention.of(model, descent.updates(bold.thresholds))
        # Four neurons; where one matrix holds gate and up projection, eight rows of it.
        ranks = [edit.update.rank for edit in change.edits.values()]
        assert sorted(ranks) == ([4, 8] if name == "phi3" else [4, 4, 4])
        kl, reached = really(model, change, examples)
    assert kl == pytest.approx(bold.kl, rel=1e-3, abs=1e-5)
    assert reached == pytest.approx(bold.refused)
    assert_untouched(model, before)


def test_the_highest_threshold_that_refuses_most_within_the_limits() -> None:
    points = [
        GateSweepPoint(0.0, 0.0, 1.0, 0.05, 0.01),
        GateSweepPoint(1.0, 0.0, 0.9, 0.02, 0.01),
        GateSweepPoint(1.0, 1.0, 0.9, 0.01, 0.01),
        GateSweepPoint(3.0, 3.0, 0.2, 0.0, 0.0),
    ]
    assert mildest_within(points, RefusalLimits(0.05, 0.03)).thresholds == (1.0, 1.0)
    assert mildest_within(points, RefusalLimits(0.05, 0.06)).thresholds == (0.0, 0.0)
    assert mildest_within(points[:2], RefusalLimits(0.05, 0.001)).thresholds == (
        1.0,
        0.0,
    )


def test_defend_leaves_the_model_alone_and_says_what_it_did(
    tiny: Any, tmp_path: Any
) -> None:
    model, tokenizer = tiny
    before = weights_of(model)
    phases: dict[str, tuple[int, int]] = {}

    def progress(phase: str, done: int, total: int) -> None:
        phases[phase] = (done, total)

    found = defend(
        model, tokenizer, method="gate", harmful=HARMFUL, refusal="No.",
        **LITTLE, max_kl=1e9, max_false_refusals=1e9, progress=progress,
    )  # fmt: skip
    assert_untouched(model, before)
    assert all(done == total for done, total in phases.values())
    assert found.options["method"] == "gate"
    assert len(found.metrics["steps"]) == LITTLE["steps"]
    sweep = found.metrics["sweep"]
    together, apart = sweep[: len(THRESHOLDS)], sweep[len(THRESHOLDS) :]
    assert all(point["opening"] == point["answering"] for point in together)
    assert all(point["answering"] < point["opening"] for point in apart)
    chosen = next(point for point in sweep if point["chosen"])
    assert found.metrics["opening"] == chosen["opening"]
    assert found.metrics["answering"] == chosen["answering"]
    assert sum(point["chosen"] for point in found.metrics["sweep"]) == 1
    kinds = {name.split(".")[-2] for name in found.edits}
    assert kinds == {"gate_proj", "up_proj", "down_proj"}
    found.save(tmp_path / "gate.safetensors")
    again = Intervention.load(tmp_path / "gate.safetensors")
    assert again.digest == found.digest
    with again.applied(model):
        assert not torch.equal(
            model.get_parameter(next(iter(found.edits))),
            before[next(iter(found.edits))],
        )
    assert_untouched(model, before)


class Monotone:
    """Refuses more, and drifts more, the lower its thresholds are."""

    def measure(self, thresholds: Thresholds, _openings: Any) -> GateSweepPoint:
        low = 2.0 - np.array(thresholds)
        return GateSweepPoint(*thresholds, low.mean(), 0.01 * low[0], 0.004 * low.sum())


@pytest.mark.parametrize(
    ("max_kl", "max_false_refusals", "answering", "chosen"),
    [
        (1.0, 1.0, [], (-0.5, -0.5)),
        (1.0, 0.021, [-0.5], (0.0, -0.5)),
        (0.0145, 0.016, [-0.5, 0.0], (0.5, 0.0)),
        (0.013, 0.016, [-0.5, 0.0], (0.5, 0.5)),
        (1.0, 1e-6, [-0.5], (2.0, -0.5)),
    ],
)
def test_prefilled_answers_are_refused_as_boldly_as_the_limits_allow(
    max_kl: float,
    max_false_refusals: float,
    answering: list[float],
    chosen: tuple[float, float],
) -> None:
    limits = RefusalLimits(max_kl, max_false_refusals)
    calls = []
    sweep = _sweep(
        cast("GateDescent", Monotone()), [1], limits, GateConfig(),
        lambda *call: calls.append(call),
    )  # fmt: skip
    apart = sweep[len(THRESHOLDS) :]
    assert [point.answering for point in apart] == answering
    assert mildest_within(sweep, limits).thresholds == chosen
    assert calls[-1][1:] == (9, 9)


def test_thresholds_can_be_given(tiny: Any) -> None:
    config = GateConfig(harmful=HARMFUL, **LITTLE, thresholds=(1.5, -0.25))
    found = defend(*tiny, config)
    (point,) = found.metrics["sweep"]
    assert (point["opening"], point["answering"]) == (1.5, -0.25)
    assert (found.metrics["opening"], found.metrics["answering"]) == (1.5, -0.25)
    assert found.options["thresholds"] == [1.5, -0.25]


def test_an_adapter_carries_all_three_matrices(tiny: Any, tmp_path: Any) -> None:
    peft = pytest.importorskip("peft")
    model, tokenizer = copy.deepcopy(tiny[0]).float(), tiny[1]
    found = defend(
        model, tokenizer, method="gate", harmful=HARMFUL, **LITTLE, layers=[1]
    )
    ids = torch.arange(1, 13).reshape(2, 6)
    with torch.no_grad():
        before = model(input_ids=ids).logits.double()
        with found.applied(model):
            meant = model(input_ids=ids).logits.double()
        # Of an untrained model nothing is expected.
        lora(found, tmp_path / "adapter", beyond_limits=True)
        loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
        adapted = loaded(input_ids=ids).logits.double()
        loaded.unload()
    assert (before - meant).norm() > 0.01 * meant.norm()
    assert (adapted - meant).norm() < 1e-3 * (before - meant).norm()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"harmful": "How?"}, "harmful: got 'How"),
        ({"harmful": []}, r"harmful: got \[\]; expected a list of texts, 1 or more"),
        ({"refusal": " "}, "refusal: got ' '"),
        ({"max_kl": -1.0}, "max_kl: got -1.0"),
        ({"layers": [7]}, "layers: got 7"),
        ({"layers": [0, 1]}, r"layers: got \[0, 1\]; method \"gate\" changes one"),
        ({"layers": "all"}, "layers: got 'all'"),
        ({"benign": 0}, "benign: got 0 and no preserve="),
        ({"thresholds": 1.0}, r"thresholds: got 1.0; expected \"auto\" or two"),
        ({"thresholds": (0.0, float("nan"))}, r"thresholds: got \(0.0, nan\)"),
        ({"matrix": "o_proj"}, "matrix: is no parameter of method 'gate'"),
        ({"forbid": ["bomb"]}, r"forbid: is no parameter of method 'gate' \(but of 'p"),
    ],
)
def test_bad_arguments_name_the_fix(tiny: Any, wrong: Any, match: str) -> None:
    given = {"method": "gate", "harmful": HARMFUL, **LITTLE} | wrong
    with pytest.raises(ArgumentError, match=match):
        defend(*tiny, **given)


@pytest.mark.model
def test_a_few_requests_on_smollm2(smollm2: Any) -> None:
    model, tokenizer = smollm2
    requests = [prompt.text for prompt in data.harmful_prompts("train")[:96]]
    config = GateConfig(
        harmful=requests, layers=[16], max_kl=0.2, max_false_refusals=0.2,
        steps=10, benign=96, answer_tokens=8,
    )  # fmt: skip
    found = defend(model, tokenizer, config)
    asked = [p.text for p in data.harmful_prompts("held_out")[:24]]
    asked += [p.text for p in data.benign_prompts("held_out")[:24]]
    rendered = [render(tokenizer, text) for text in asked]
    with found.applied(model):
        answers = generate(model, tokenizer, rendered, 4)
    refused = [tokenizer.decode(one).startswith("Sorry") for one in answers]
    assert sum(refused[:24]) > 6
    assert sum(refused[24:]) < 4
