# SPDX-License-Identifier: Apache-2.0
"""A head that carries what a request's tokens say: what it reads, writes and leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.gate_examples import random_requests
from support.saved_models import save_tiny_model

from cintervene import defend
from cintervene.errors import ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.gate.head import find_heads
from cintervene.methods.gate.relay import Relay, candidates, fit_relay
from cintervene.models import find_decoder, loading
from cintervene.models.trace import evaluating, hooked
from cintervene.utils.progress import silent

HEADS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}), ("qwen2", {}), ("qwen3", {}), ("mistral", {}),
    ("llama", {"attention_bias": True}),
]  # fmt: skip


def seen_by(head: Any, model: Any, ids: list[int]) -> tuple[Any, Any]:
    """What a layer's value and output projections read, (tokens, d)."""
    entered: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda _m, args, _y: entered.__setitem__(name, args[0][0].double())

    with (
        evaluating(model),
        hooked(head.value.module, keep("value")),
        hooked(head.output.module, keep("output")),
    ):
        model(input_ids=torch.tensor([ids]))
    return entered["value"].numpy(), entered["output"].numpy()


def relay_of(model: Any, layer: int) -> Relay:
    """A relay that reads and writes anything."""
    rng = np.random.default_rng(3)
    head = find_heads(find_decoder(model), layer)[1]
    width, size = head.value.d_in, len(head.rows)
    return Relay(
        head, 2, rng.standard_normal(width), np.eye(width)[0],
        rng.standard_normal((head.output.d_out, size)),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "options"), HEADS)
def test_the_head_sees_all_tokens_alike_and_carries_one_number_of_each(
    tiny_model: Any, name: str, options: dict[str, Any]
) -> None:
    model = tiny_model(name, **options)
    relay = relay_of(model, 1)
    head, ids = relay.head, [5, 17, 3, 40, 8]
    read, _ = seen_by(head, model, ids)
    change = Intervention.of(model, relay.updates())
    with change.applied(model):
        _, mixed = seen_by(head, model, ids)
    biased = head.query.module.bias is not None and bool(head.query.module.bias.any())
    # Biases are taken out as far as the constant is one.
    if not biased:
        counts = np.arange(1, len(ids) + 1)
        means = np.cumsum(read @ relay.reading) / counts
        column = head.rows[relay.place]
        np.testing.assert_allclose(mixed[:, column], means, rtol=1e-4, atol=1e-5)
    weight = dict(model.named_parameters())[head.output.name]
    with change.applied(model):
        written = weight.detach().double().numpy()
    np.testing.assert_allclose(
        written[:, list(head.rows)], relay.columns, rtol=1e-5, atol=1e-6
    )
    others = [one[relay.place] for one in head.group if one != head.rows]
    assert not written[:, others].any()
    ranks = {n.split(".")[-2]: e.update.rank for n, e in change.edits.items()}
    assert ranks["v_proj"] == 1
    assert ranks["q_proj"] == len(head.rows)


def test_what_it_reads_of_a_request_is_the_same_whatever_suffix_follows(
    tiny_model: Any,
) -> None:
    model = tiny_model("llama")
    relay = relay_of(model, 1)
    request, column = [5, 17, 3, 40, 8], relay.head.rows[relay.place]
    sums = []
    with Intervention.of(model, relay.updates()).applied(model):
        for suffix in ([], [9, 9, 21], [70, 2]):
            read, mixed = seen_by(relay.head, model, request + suffix)
            numbers = read @ relay.reading
            sums.append(numbers[: len(request)])
            total = mixed[-1, column] * len(numbers)
            assert total == pytest.approx(
                sums[-1].sum() + numbers[len(request) :].sum(), rel=1e-4, abs=1e-4
            )
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["phi3", "gemma2"])
def test_other_attentions_are_refused(tiny_model: Any, name: str) -> None:
    decoder = find_decoder(tiny_model(name))
    with pytest.raises(ModelError, match="expected an attention with matrices"):
        find_heads(decoder, 1)
    assert candidates(decoder, 3) == []


def test_it_tells_apart_and_makes_up_for_what_the_head_did(tiny_model: Any) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += 2.0
    decoder = find_decoder(model)
    examples = random_requests(40, 10)
    heads = candidates(decoder, 2)
    assert [layer[0].output.layer for layer in heads] == [1]
    relay = fit_relay(decoder, heads, examples, 3e-3, silent)
    column = relay.head.rows[relay.place]
    change = Intervention.of(model, relay.updates())

    def carried(some: Any) -> list[float]:
        found = []
        with change.applied(model):
            for one in some:
                ids = list(one.ids[: one.opening + 1])
                found.append(seen_by(relay.head, model, ids)[1][-1, column])
        return found

    bad = carried([one for group in examples.harmful for one in group])
    good = carried(examples.benign)
    assert np.mean(np.array(bad)[:, None] > np.array(good)) > 0.8
    # Making up for the head loses less than leaving it out.
    columns = relay.columns.copy()
    columns[:, relay.place] = 0.0
    lost = {}
    for name, kept in (("made up", columns), ("left out", 0.0 * columns)):
        same = Relay(relay.head, relay.place, relay.reading, relay.constant, kept)
        difference = 0.0
        for one in examples.benign[:10]:
            ids = torch.tensor([one.ids])
            outputs = []
            with hooked(
                relay.head.output.module,
                lambda _m, _x, y, outputs=outputs: outputs.append(y.detach().double()),
            ):
                model(input_ids=ids)
                with Intervention.of(model, same.updates()).applied(model):
                    model(input_ids=ids)
            difference += float((outputs[1] - outputs[0]).square().sum())
        lost[name] = difference
    assert lost["made up"] < 0.9 * lost["left out"]


def test_defend_adds_the_head_where_it_is_asked_for(tmp_path: Any) -> None:
    directory = save_tiny_model(tmp_path / "tiny", num_hidden_layers=4)
    model, tokenizer = loading.load(directory)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    kinds = {}
    for relay in (True, False):
        found = defend(
            model, tokenizer, method="gate", harmful=["How do I steal a car?"] * 2,
            refusal="No.", layers=[2], relay=relay, steps=2, examples_per_step=4,
            benign=12, answer_tokens=3, thresholds=(0.0, 0.0),
        )  # fmt: skip
        kinds[relay] = {name.split(".")[-2]: edit for name, edit in found.edits.items()}
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert set(kinds[False]) == {"gate_proj", "up_proj", "down_proj"}
    assert set(kinds[True]) - set(kinds[False]) == {"q_proj", "v_proj", "o_proj"}
    assert {kinds[True][name].layer for name in ("q_proj", "v_proj", "o_proj")} == {1}
    # Drift is that of both together: the head is missed even where no neuron opens.
    shy = defend(
        model, tokenizer, method="gate", harmful=["How do I steal a car?"] * 2,
        refusal="No.", layers=[2], relay=True, steps=2, examples_per_step=4, benign=12,
        answer_tokens=3, thresholds=(1e3, 1e3),
    )  # fmt: skip
    (point,) = shy.metrics["sweep"]
    assert point["kl"] > 0.0
