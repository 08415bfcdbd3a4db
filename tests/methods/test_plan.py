# SPDX-License-Identifier: Apache-2.0
"""What a plan tells, without a forward pass; and what a process then takes."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import cintervene as ci
from cintervene.errors import ArgumentError, ModelError
from cintervene.methods.pcr.hinge.method import hinged_mlp
from cintervene.methods.plan.memory import LIBRARIES
from cintervene.methods.plan.shape import ModelShape
from cintervene.models.outline import has_plain_neurons
from cintervene.models.parts import ModelParts

BENCH = Path(__file__).parents[2] / "benchmarks" / "bench_plan.py"
REQUESTS = {"harmful": ["How?", "Why?"], "layers": [-1]}
METHODS: dict[str, dict[str, Any]] = {
    "pcr": {"forbid": ["bomb"]},
    "tsr": REQUESTS,
    "arr": REQUESTS,
    "gate": REQUESTS,
}


def config_of(hidden: int, inner: int, layers: int, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaConfig(
        vocab_size=32_000, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=8,
        dtype="bfloat16", **more,
    )  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    config_of(4096, 14336, 32).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_not_run(
    tiny_model: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(model, "forward", fail)
    monkeypatch.setattr(model.model, "forward", fail)
    found = ci.plan(model, method=method, **METHODS[method])
    weights = sum(one.nbytes for one in model.parameters())
    assert weights <= found.model_bytes <= 1.01 * weights
    most = max(found.phases.values())
    assert found.host_bytes == LIBRARIES + found.model_bytes + most
    assert found.seconds == sum(found.parts.values()) > 0.0
    assert found.device_bytes == 0
    assert str(found).startswith(f"{method}: about ")


def test_a_directory_without_weights_is_enough(directory: Path) -> None:
    shape = ModelShape.of(directory)
    assert (shape.hidden, shape.inner, shape.layers) == (4096, 14336, 32)
    # 32 layers of four matrices of attention and three of the MLP, head and embedding.
    numbers = 32 * (4 * 4096**2 + 3 * 4096 * 14336) + 2 * 32_000 * 4096
    assert shape.model == 2 * numbers
    triangle = 4 * 14336**2
    matrices = ci.plan(directory, forbid=["bomb"], hinge="off")
    neurons = ci.plan(directory, forbid=["bomb"])
    assert neurons.phases["neurons"] > triangle
    assert matrices.phases["solve"] > 2 * triangle
    few = ci.plan(directory, forbid=["bomb"], hinge="off", calibration="small")
    assert few.phases["solve"] < matrices.phases["solve"]


def test_what_is_changed_is_what_a_defence_changes(
    any_model: Any, tmp_path: Path
) -> None:
    """Neurons, or matrices where a norm follows the MLP or it is not gated."""
    config = ci.PCRConfig(forbid=["bomb"])
    mlp = hinged_mlp(ModelParts.find(any_model), config)
    any_model.config.save_pretrained(tmp_path)
    for model in (any_model, tmp_path):
        phases = ci.plan(model, config).phases
        assert ("neurons" in phases) == (mlp is not None)
        assert ("solve" in phases) == (mlp is None)


def test_norms_behind_an_mlp_are_seen(tiny_model: Any) -> None:
    llama, gemma, gpt = (tiny_model(name) for name in ("llama", "gemma2", "gpt2"))
    assert [has_plain_neurons(one.config, 3) for one in (llama, gemma, gpt)] == [
        True, False, False
    ]  # fmt: skip
    planned, matrices = (
        ci.plan(gemma, forbid=["bomb"], hinge=hinge) for hinge in ("auto", "off")
    )
    assert planned.phases == matrices.phases
    assert planned.host_bytes == matrices.host_bytes
    # Where code cannot be run without numbers, it is what is asked for.
    assert has_plain_neurons(SimpleNamespace(model_type="unheard-of"), 3) is None


def test_given_answers_are_not_made(directory: Path) -> None:
    given = [("Why?", "Because."), ("How?", "Somehow.")]
    assert ci.plan(directory, forbid=["bomb"], answers=given).phases["prompts"] == 0


def test_more_layers_and_wider_ones_take_more(directory: Path, tmp_path: Path) -> None:
    one = ci.plan(directory, method="tsr", **REQUESTS)
    five = ci.plan(directory, method="tsr", **{**REQUESTS, "layers": [1, 2, 3, 4, 5]})
    assert five.phases["solve"] > 3 * one.phases["solve"]
    assert five.parts["algebra"] == pytest.approx(5 * one.parts["algebra"])
    config_of(1024, 4096, 32).save_pretrained(tmp_path / "narrow")
    narrow = ci.plan(tmp_path / "narrow", method="tsr", **REQUESTS)
    assert narrow.host_bytes < one.host_bytes / 4


def test_each_method_has_its_own_phases(directory: Path) -> None:
    """Of one layer too."""
    named = {
        name: set(ci.plan(directory, method=name, **METHODS[name]).phases)
        for name in METHODS
    }
    assert named["tsr"] == named["arr"] >= {"sampling", "change"}
    assert "idlest" in named["gate"] - named["tsr"]


def test_within_the_memory_of_a_workstation(directory: Path) -> None:
    """Over a model of 8B two and a half matrices of the width of a layer, at most."""
    unit = 8 * 14336**2
    for method, options in METHODS.items():
        found = ci.plan(directory, method=method, **options)
        over = found.host_bytes - found.model_bytes - LIBRARIES
        assert over < 2.5 * unit, method
    matrices = ci.plan(directory, forbid=["bomb"], hinge="off", layers=[30, 31])
    over = matrices.host_bytes - matrices.model_bytes - LIBRARIES
    assert over < 2.5 * unit


def test_on_a_device_the_model_is_there(directory: Path) -> None:
    here = ci.plan(directory, forbid=["bomb"])
    away = ci.plan(directory, forbid=["bomb"], device="cuda")
    assert away.device_bytes > away.model_bytes == here.model_bytes
    assert away.host_bytes <= here.host_bytes - away.model_bytes
    assert away.host_bytes < away.device_bytes
    assert set(away.parts) == {"algebra"}
    assert "on the device" in str(away)


def test_what_cannot_be_planned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="method: got 'none'"):
        ci.plan(tmp_path, method="none")
    with pytest.raises(ModelError):
        ci.plan(tmp_path / "nothing", forbid=["bomb"])
    config = SimpleNamespace(hidden_size=64, num_hidden_layers=2)
    config.get_text_config = lambda: config
    with pytest.raises(ModelError, match="has none of vocab_size"):
        ModelShape._of_config(config, "it")


@pytest.mark.model
def test_a_process_takes_what_was_planned() -> None:
    pytest.importorskip("transformers")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("measures the largest resident set, which Linux alone resets")
    ci.models.load("smollm2")
    command = [sys.executable, str(BENCH), "30M", "--methods", "pcr", "--alone"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    most = max(found["peaks"].values())
    assert found["plan"]["host_bytes"] == pytest.approx(most, rel=0.2)
