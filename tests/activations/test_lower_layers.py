# SPDX-License-Identifier: Apache-2.0
"""Sharing what sequences begin with changes nothing of what is captured."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations import lower_layers as lower
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.lower_layers import LowerLayers, shared_prefix
from cintervene.models.decoder import find_decoder
from cintervene.models.targets import find_targets

BEGINNING = [5, 9, 2, 7, 3, 8]
IDS = [
    [*BEGINNING, 11, 12, 13],
    [*BEGINNING, 14],
    [4, 4, 6],
    [*BEGINNING, 15, 16, 17, 18, 19],
    BEGINNING,
]
# The last of them has to keep a token of its own.
SHARED = tuple(BEGINNING[:-1])


def test_the_prefix_is_the_one_that_saves_most():
    assert shared_prefix(IDS) == SHARED
    # Three tokens of three others save more than five of one.
    assert shared_prefix(
        [[1, 2, 3, 9], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 8]]
    ) == (1, 2, 3)


@pytest.mark.parametrize(
    "ids", [[[1, 2, 3]], [[1], [1]], [[1, 2], [3, 4]], [[1, 2], [2, 1], [3, 3]]]
)
def test_nothing_is_shared_where_nothing_is_saved(ids):
    assert shared_prefix(ids) == ()


def test_a_sequence_keeps_a_token_of_its_own():
    assert shared_prefix([[1, 2, 3], [1, 2, 3], [1, 2, 3]]) == (1, 2)


@pytest.mark.parametrize("first", [0, 1, 3])
def test_rows_are_those_of_plain_passes(any_model, first, monkeypatch):
    positions = [slice(None)] * len(IDS)
    shared = LayerStream(find_decoder(any_model), IDS, first, wanted=positions).run(
        first
    )
    monkeypatch.setattr(lower, "SHORTEST_PREFIX", 1000)
    plain = LayerStream(find_decoder(any_model), IDS, first, wanted=positions).run(
        first
    )
    assert torch.equal(shared.positions, plain.positions)
    torch.testing.assert_close(shared.inputs, plain.inputs, rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(shared.outputs, plain.outputs, rtol=2e-2, atol=2e-3)


def test_the_beginning_runs_once(any_model):
    decoder = find_decoder(any_model)
    projection = find_targets(any_model, [0])[0].module
    layers = LowerLayers(decoder, 2)
    # Whether the model goes on from a prefix is tried out at first, once.
    assert layers.prefixes([IDS]) != [None]
    seen = []
    handle = projection.register_forward_hook(
        lambda _module, args, _y: seen.append(args[0].shape[:-1].numel())
    )
    (prefix,) = layers.prefixes([IDS])
    assert prefix is not None
    assert prefix.tokens == SHARED
    (entering,) = layers.begin([([IDS[0], IDS[1]], prefix)])
    layers.run([entering])
    handle.remove()
    assert seen == [len(SHARED), 2 * 4]
    assert entering.hidden.shape[:2] == (2, 9)
    assert sorted(entering.arguments) == list(range(2, len(decoder.layers)))


def test_batches_go_through_a_layer_one_after_the_other(tiny_model):
    """A layer is called for all batches, each with its prefix, before the next is."""
    model = tiny_model("llama")
    decoder = find_decoder(model)
    layers = LowerLayers(decoder, 2)
    (prefix,) = layers.prefixes([IDS])
    batches = [([IDS[0], IDS[1]], prefix), ([IDS[2]], None), ([IDS[3]], prefix)]
    alone = []
    for batch in batches:
        one = layers.begin([batch])
        layers.run(one)
        alone += one
    together = layers.begin(batches)
    called = []
    for number in range(2):
        decoder.layers[number].register_forward_hook(
            lambda _m, args, _y, number=number: called.append((number, len(args[0])))
        )
    layers.run(together)
    assert called == [(0, 2), (0, 1), (0, 1), (1, 2), (1, 1), (1, 1)]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.hidden, other.hidden)


def test_nothing_is_shared_by_layers_that_see_no_past(tiny_model, monkeypatch):
    model = tiny_model("llama")
    decoder, attention = find_decoder(model), model.model.layers[1].self_attn
    plain = attention.forward

    def forgetful(*args, past_key_values=None, **kwargs):
        if past_key_values is not None:
            kwargs["attention_mask"] = None
        return plain(*args, **kwargs)

    monkeypatch.setattr(attention, "forward", forgetful)
    assert LowerLayers(decoder, 2).prefixes([IDS]) == [None]
