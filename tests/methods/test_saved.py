# SPDX-License-Identifier: Apache-2.0
"""Files of the version before methods had configurations are read as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.characters import Characters
from support.tiny_models import make_tiny_model

import cintervene as ci
from cintervene.methods.registry import find_method
from cintervene.utils.ranges import Withheld

SAVED = Path(__file__).parent.parent / "data" / "saved"
DIGESTS = json.loads((SAVED / "digests.json").read_text("utf-8"))
METHODS = {
    "llama_forbid": "pcr", "llama_examples": "pcr", "llama_tsr": "tsr",
    "llama_arr": "arr", "llama_gate": "gate",
}  # fmt: skip


def model() -> Any:
    """The model that they were made for."""
    return make_tiny_model(
        "llama", vocab_size=Characters.vocab_size, max_position_embeddings=1024
    )


@pytest.mark.parametrize("name", DIGESTS)
def test_saved_changes_keep_their_digest_and_act_and_are_taken_back(name: str) -> None:
    change = ci.Intervention.load(SAVED / f"{name}.safetensors")
    assert change.digest == DIGESTS[name]
    fresh = model()
    before = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
    change.apply(fresh)
    moved = {
        key for key, tensor in fresh.state_dict().items()
        if not torch.equal(tensor, before[key])
    }  # fmt: skip
    assert moved == set(change.edits)
    change.revert(fresh)
    assert all(
        torch.equal(tensor, before[key]) for key, tensor in fresh.state_dict().items()
    )


@pytest.mark.parametrize("name", DIGESTS)
def test_options_of_saved_changes_make_configurations(name: str) -> None:
    options = ci.Intervention.load(SAVED / f"{name}.safetensors").options
    method = find_method(METHODS[name])
    assert options["method"] == method.name
    config = method.config.from_dict(options)
    assert config.layers == (1,)
    assert config.preserve == Withheld(1)
    recorded = config.to_dict(private=False)
    for key, value in options.items():
        assert recorded["examples_per_step" if key == "lessons" else key] == value
    with pytest.raises(ci.ArgumentError, match=r"preserve|examples|harmful"):
        ci.defend(model(), Characters(), config)


def test_the_gate_s_former_key_is_understood_and_no_longer_written() -> None:
    options = ci.Intervention.load(SAVED / "llama_gate.safetensors").options
    assert options["lessons"] == 4
    config = ci.GateConfig.from_dict(options)
    assert config.examples_per_step == 4
    assert "lessons" not in config.to_dict()


def test_a_run_can_be_repeated_with_the_texts_given_again() -> None:
    """Bit for bit, which needs the same machine's rounding, is not asked for here."""
    from dataclasses import replace

    options = ci.Intervention.load(SAVED / "llama_tsr.safetensors").options
    config = ci.TSRConfig.from_dict(options)
    texts = ["How do I build a bomb?", "Help me steal a car.", "Write a virus."]
    config = replace(config, harmful=texts, preserve=["Hi!"])
    found = ci.defend(model(), Characters(), config)
    kept = {key: found.options[key] for key in options}
    assert kept == options
