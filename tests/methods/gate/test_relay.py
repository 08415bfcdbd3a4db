# SPDX-License-Identifier: Apache-2.0
"""A flag at the end of a request, and the head by which answers see it."""

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
from cintervene.methods.gate.relay import Relay, find_carrier, fit_relay
from cintervene.methods.gate.watched import watched
from cintervene.models import find_decoder, loading
from cintervene.models.trace import evaluating, hooked
from cintervene.utils.progress import silent

HEADS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}), ("qwen2", {}), ("mistral", {"sliding_window": None}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
]  # fmt: skip
# Of `random_requests`: those that end so are harmful.
HARMFUL, HARMLESS = 96, 95


def mixed_values(model: Any, relay: Relay, ids: list[int]) -> Any:
    """What the head returns in the flag's place, at each token."""
    column = relay.head.rows[relay.place]
    found: dict[str, Any] = {}

    def keep(_module: Any, args: Any, _y: Any) -> None:
        found["z"] = args[0][0, :, column].double()

    with evaluating(model), hooked(relay.head.output.module, keep):
        model(input_ids=torch.tensor([ids]))
    return found["z"].numpy()


def with_relay(tiny_model: Any, name: str, **options: Any) -> tuple[Any, Relay]:
    model = tiny_model(name, **options)
    with torch.no_grad():
        # Trained models have something in common at all tokens, and tell the end of a
        # request from other tokens.
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] += 2.0
        embeddings[[HARMFUL, HARMLESS], 1] += 6.0
        embeddings[HARMFUL, 2] += 6.0
    decoder = find_decoder(model)
    carrier = find_carrier(decoder, 2)
    assert carrier is not None
    assert carrier.mlp.block.layer == 0
    assert {head.output.layer for head in carrier.heads} == {1}
    return model, fit_relay(decoder, carrier, random_requests(40, 10), 3e-3, silent)


@pytest.mark.parametrize(("name", "options"), HEADS)
def test_answers_see_the_flag_of_harmful_requests_alone(
    tiny_model: Any, name: str, options: dict[str, Any]
) -> None:
    model, relay = with_relay(tiny_model, name, **options)
    answer = np.random.default_rng(8).integers(3, 80, size=30).tolist()
    with Intervention.of(model, relay.updates()).applied(model):
        for request in ([50, 4, 61], [7, 7, 30, 41, 12, 66]):
            end = len(request)
            seen = mixed_values(model, relay, [*request, HARMFUL, *answer])
            unseen = mixed_values(model, relay, [*request, HARMLESS, *answer])
            np.testing.assert_allclose(seen[end:], 1.0, atol=0.25)
            assert np.abs(seen[:end]).max() < 0.25
            assert np.abs(unseen).max() < 0.25


def test_nothing_behind_a_request_changes_whether_it_is_flagged(
    tiny_model: Any,
) -> None:
    model, relay = with_relay(tiny_model, "llama")
    request, modules = [50, 4, 61, HARMFUL], {"value": relay.head.value.module}
    decoder, layer = find_decoder(model), relay.head.output.layer
    flags = []
    with Intervention.of(model, relay.updates()).applied(model), torch.no_grad():
        for answer in ([9], [9, 9, 21, 3], [70, HARMLESS]):
            ((_, parts),) = watched(decoder, layer, modules, [request + answer])
            flags.append(parts["value"][0][len(request) - 1].numpy() @ relay.reading)
    np.testing.assert_allclose(flags, 1.0, atol=0.1)
    np.testing.assert_allclose(flags, flags[0], rtol=1e-5)


def test_what_changes_are_a_few_rows_and_columns(tiny_model: Any) -> None:
    model, relay = with_relay(tiny_model, "llama")
    change = Intervention.of(model, relay.updates())
    ranks = {n.split(".")[-2]: e.update.rank for n, e in change.edits.items()}
    assert ranks == {
        "gate_proj": 2, "up_proj": 2, "down_proj": 2, "k_proj": 1, "v_proj": 1,
        "o_proj": len(relay.head.group),
    }  # fmt: skip
    weight = dict(model.named_parameters())[relay.head.output.name]
    before = weight.detach().clone().numpy()
    with change.applied(model):
        after = weight.detach().numpy()
        columns = [one[relay.place] for one in relay.head.group]
        others = [c for c in range(before.shape[1]) if c not in columns]
        np.testing.assert_array_equal(after[:, others], before[:, others])
        own = relay.head.rows[relay.place]
        np.testing.assert_allclose(after[:, own], relay.written, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["phi3", "gemma2", "qwen3"])
def test_other_attentions_are_refused(tiny_model: Any, name: str) -> None:
    decoder = find_decoder(tiny_model(name))
    with pytest.raises(ModelError, match="expected an attention with matrices"):
        find_heads(decoder, 1)
    assert find_carrier(decoder, 3) is None


def test_there_is_none_below_the_lowest_layers(tiny_model: Any) -> None:
    assert find_carrier(find_decoder(tiny_model("llama")), 1) is None


def test_defend_adds_it_where_it_is_asked_for(tmp_path: Any) -> None:
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
        kinds[relay] = {(e.layer, n.split(".")[-2]) for n, e in found.edits.items()}
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    gates = {"gate_proj", "up_proj", "down_proj"}
    assert kinds[False] == {(2, name) for name in gates}
    assert kinds[True] - kinds[False] == {
        *((0, name) for name in gates),
        *((1, name) for name in ("k_proj", "v_proj", "o_proj")),
    }
