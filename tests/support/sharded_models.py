# SPDX-License-Identifier: Apache-2.0
"""What several processes do with a tiny model of which each has a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import cintervene as ci
from cintervene.errors import InterventionError, ModelError
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.models import explain
from cintervene.models.weights import sha256
from support.guarded import guard
from support.interventions import random_intervention
from support.little_defences import little_defence
from support.tiny_models import make_tiny_model

IDS = torch.arange(1, 9).view(1, 8)
close = torch.testing.assert_close
WAY_OUT = 'device_map="auto"'


def make(kind: str) -> Any:
    """A model; with parts of two sizes where that can be."""
    if kind == "tensor parallel":
        return make_tiny_model("llama")
    heads = dict.fromkeys(["num_attention_heads", "num_key_value_heads"], 5)
    return make_tiny_model("llama", hidden_size=25, head_dim=6, **heads)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(IDS).logits


def layer_by_layer(model: Any, **options: Any) -> Any:
    for layer in model.model.layers:
        fully_shard(layer, mesh=init_device_mesh("cpu", (2,)), **options)
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)), **options)


def kept_together(model: Any) -> Any:
    """Weights stay together after a forward pass, until something parts them anew."""
    return layer_by_layer(model, reshard_after_forward=False)


def at_the_root(model: Any) -> Any:
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def tensor_parallel(model: Any) -> Any:
    plan: dict[str, Any] = {}
    for index in range(len(model.model.layers)):
        mlp = f"model.layers.{index}.mlp"
        plan |= {
            f"{mlp}.gate_proj": ColwiseParallel(),
            f"{mlp}.up_proj": ColwiseParallel(),
        }
        plan[f"{mlp}.down_proj"] = RowwiseParallel()
    return parallelize_module(model, init_device_mesh("cpu", (2,)), plan)


def flat(model: Any) -> Any:
    return FullyShardedDataParallel(
        model, use_orig_params=True, device_id=torch.device("cpu")
    )


PARTED = {
    "layer by layer": layer_by_layer,
    "kept together": kept_together,
    "at the root": at_the_root,
    "tensor parallel": tensor_parallel,
}


def stored(model: Any) -> dict[str, str]:
    """What a checkpoint would hold."""
    return {
        name: sha256(value.full_tensor() if isinstance(value, DTensor) else value)
        for name, value in model.state_dict().items()
    }


def changes(_rank: int) -> None:
    """All that can be done with all kinds."""
    for kind in PARTED:
        changes_weights(kind)
        takes_back_what_others_changed(kind)
        makes_for_another_base(kind)
        if kind != "tensor parallel":
            attaches(kind)


def refusals(rank: int, saved: Path) -> None:
    """All that cannot."""
    for kind in (*PARTED, "flat"):
        refuses(rank, kind, saved)


def changes_weights(kind: str) -> None:
    plain, model = make(kind), PARTED[kind](make(kind))
    change = random_intervention(plain)
    base, base_stored = logits(plain), stored(plain)
    close(logits(model), base)
    assert stored(model) == base_stored
    with change.applied(plain):
        expected, expected_stored = logits(plain), stored(plain)
    logits(model)
    assert change.apply(model).changed == list(change.edits)
    close(logits(model), expected)
    assert stored(model) == expected_stored
    close(logits(model), expected)
    with pytest.raises(InterventionError, match="carries this intervention already"):
        change.apply(model)
    change.revert(model)
    close(logits(model), base)
    assert stored(model) == base_stored


def takes_back_what_others_changed(kind: str) -> None:
    plain = make(kind)
    change = random_intervention(plain)
    base = stored(plain)
    change.apply(plain)
    model = PARTED[kind](plain)
    change.revert(model)
    assert stored(model) == base


def makes_for_another_base(kind: str) -> None:
    plain, other = make(kind), make(kind).double()
    change = random_intervention(other)
    expected = change.rebase(plain)
    found = change.rebase(PARTED[kind](make(kind)))
    assert found.digest == expected.digest
    for name, edit in found.edits.items():
        assert edit.base_sha256 == expected.edits[name].base_sha256
        assert edit.result_sha256 == expected.edits[name].result_sha256


def attaches(kind: str) -> None:
    plain, model = make(kind), PARTED[kind](make(kind))
    change = random_intervention(plain)
    base = logits(plain)
    with AdapterIntervention(change).applied(plain):
        expected = logits(plain)
    with AdapterIntervention(change).applied(model):
        close(logits(model), expected)
    close(logits(model), base)


def refuses(rank: int, kind: str, saved: Path) -> None:
    whole, tokenizer = ci.models.load(saved)
    change = random_intervention(whole, [1])
    parted = {**PARTED, "flat": flat}[kind](ci.models.load(saved)[0])
    before = None if kind == "flat" else stored(parted)
    # Before anything is sent: the other process is not needed for it.
    if rank == 0:
        with pytest.raises(ModelError, match=WAY_OUT):
            ci.defend(parted, tokenizer, **little_defence("pcr") | {"layers": [1]})
        with pytest.raises(ModelError, match=WAY_OUT):
            explain(parted)
        with pytest.raises(ModelError, match=WAY_OUT):
            guard(parted)
    if kind in ("flat", "tensor parallel"):
        with pytest.raises(InterventionError, match=WAY_OUT):
            AdapterIntervention(change).apply(parted)
    if kind == "flat":
        with pytest.raises(InterventionError, match=r"flattens weights.*checkpoint"):
            change.apply(parted)
    else:
        assert stored(parted) == before
