# SPDX-License-Identifier: Apache-2.0
"""The last MLP alone gives what the whole layer gives, whatever its weights are."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.last_block import LastBlock
from cintervene.activations.layer_stream import Asked, LayerStream, finals
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.models import find_decoder
from cintervene.prompts.target_spans import TargetSpan

IDS = [[5, 9, 3, 7, 11, 2, 8], [4, 6], [13, 6, 1, 9, 9], list(range(20, 31))]
SPANS = [TargetSpan(tuple(ids), start=1) for ids in IDS]


def streams(model: Any, layer: int) -> tuple[Any, list[LayerStream], Any]:
    decoder = find_decoder(model)
    block = find_gated_mlp(decoder, layer).block
    asked = [Asked(SPANS), Asked(SPANS[2:])]
    return decoder, LayerStream.several(decoder, asked, layer, block=block), block


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
def test_states_are_those_of_the_whole_layer(
    tiny_model: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cintervene.activations.last_block.ROWS", 7)
    decoder, whole, block = streams(tiny_model(kind), 3)
    last = LastBlock.of(decoder, whole, block)
    assert last is not None
    for change in (0.0, 0.3):
        with torch.no_grad():
            for weight in block.module.parameters():
                weight.add_(change * torch.ones_like(weight).cumsum(dim=-1).sin())
        for found, expected in zip(last.states(), finals(whole), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert [stream.layer for stream in whole] == [3, 3]


def test_where_more_follows_there_is_none(tiny_model: Any) -> None:
    model = tiny_model("llama")
    assert LastBlock.of(*streams(model, 1)) is None
    # A norm takes out how large what the MLP returns is.
    assert LastBlock.of(*streams(tiny_model("gemma3"), 3)) is None
