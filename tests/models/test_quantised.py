# SPDX-License-Identifier: Apache-2.0
"""Models with quantised weights: computed with, changed by adapters only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.packed_layers import Codes, with_packed

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.interventions import random_intervention, random_update
from support.saved_models import save_tiny_model

import cintervene as ci
from cintervene import export
from cintervene.errors import InterventionError, ModelError
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.models import explain, find_targets, rounded_change
from cintervene.models.quantised import (
    check_gradients,
    check_writable,
    dequantised,
    is_quantised,
)
from cintervene.prompts.calibration import CalibrationSize

nn = torch.nn
LITTLE = CalibrationSize(
    starting=1, later=1, contrast_words=4, text_words=4,
    prompts=12, tune_prompts=4, answer_tokens=8,
)  # fmt: skip
WIDTHS = {"hidden_size": 64, "intermediate_size": 128}
IDS = torch.tensor([[5, 9, 3, 7, 11, 2, 8]])
REFUSED = r"quantised weights \({}\), expected a matrix.*export\.lora.*peft.*"
REFUSED += "AdapterIntervention"


class Lossy(Codes):
    """As kernels without a backward pass: what comes out knows of no inputs."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.detach())


class Bent(Codes):
    def forward(self, x: Any) -> Any:
        return super().forward(x).square()


class Picky(Codes):
    """Runs on three tokens, as the probe has."""

    def forward(self, x: Any) -> Any:
        if x.shape[-2] != 3:
            raise ValueError("three rows only")
        return super().forward(x)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_the_matrix_is_read_off(tiny_model: Any, dtype: Any, bias: bool) -> None:
    model = with_packed(tiny_model("llama", mlp_bias=bias).to(dtype), Codes)
    (target,) = find_targets(model, [3])
    module = target.module
    assert (target.compute_dtype, target.dtype, target.d_in, target.d_out) == (
        dtype, dtype, 40, 24,
    )  # fmt: skip
    expected = module.qweight.to(dtype) * module.scale
    tolerance = 0.0 if not bias else 4e-3 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(target.weight, expected, rtol=0, atol=tolerance)
    assert find_targets(model, [2])[0].compute_dtype is None
    assert "quantised (Codes), by an adapter only" in str(explain(model, [3]))


def test_wide_matrices_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    base = nn.Linear(10, 6)
    monkeypatch.setattr("cintervene.models.quantised.BLOCK", 4)
    module = Codes(base)
    found = dequantised(module, 10, torch.float32)
    torch.testing.assert_close(found, module.qweight.float() * module.scale)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Bent, "does not return its input times its weight"),
        (Picky, r"Picky could not be run on unit vectors.*three rows only"),
    ],
)
def test_what_is_not_linear_is_refused(tiny_model: Any, kind: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        find_targets(with_packed(tiny_model("llama"), kind), [3])


def test_changed_by_attaching_only(tiny_model: Any) -> None:
    model = with_packed(tiny_model("llama"), Codes)
    before = logits(model)
    change = random_intervention(model, [1, 3])
    packed = change.edits["model.layers.3.mlp.down_proj.weight"]
    assert packed.flips is None
    for act in (change.apply, change.revert, change.rebase):
        with pytest.raises(InterventionError, match=REFUSED.format("Codes")):
            act(model)
    assert torch.equal(logits(model), before)
    with applicable_form(change, model).applied(model):
        assert not torch.allclose(logits(model), before, rtol=0.1)
    assert torch.equal(logits(model), before)


def test_nothing_is_rounded(tiny_model: Any) -> None:
    model = with_packed(tiny_model("llama").bfloat16(), Codes)
    (target,) = find_targets(model, [3])
    update = random_update(target, size=1e-3)
    found = rounded_change(target, update)
    torch.testing.assert_close(found.double(), torch.from_numpy(update.matrix()))


def test_plain_models_take_it_as_it_is(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    assert applicable_form(change, model) is change


def test_what_has_to_be_written_to_is_whole(tiny_model: Any) -> None:
    check_writable(tiny_model("gpt2"))
    with pytest.raises(
        ModelError, match=r"got model\.layers\.3.*quantised or offloaded"
    ):
        check_writable(with_packed(tiny_model("llama"), Lossy))
    model = tiny_model("llama")
    model.lm_head.to("meta")
    with pytest.raises(ModelError, match=r"lm_head\.weight quantised or offloaded"):
        check_writable(model)


def test_lost_gradients_are_noticed(tiny_model: Any) -> None:
    check_gradients(tiny_model("llama"))
    check_gradients(with_packed(tiny_model("llama"), Codes))
    with pytest.raises(ModelError, match=r"layers\.3.*Lossy that passes no gradient"):
        check_gradients(with_packed(tiny_model("llama"), Lossy))


@pytest.fixture
def quiet() -> Iterator[None]:
    """bitsandbytes says at each call that it casts its inputs."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("saved") / "base", **WIDTHS)


BNB = {
    "8 bit": {"load_in_8bit": True},
    "4 bit": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16},
    "4 bit, stored as floats": {
        "load_in_4bit": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_quant_storage": torch.bfloat16,
    },
}


def load_quantised(saved: Path, **options: Any) -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    config = transformers.BitsAndBytesConfig(**options)
    return transformers.AutoModelForCausalLM.from_pretrained(
        saved, quantization_config=config, dtype=torch.bfloat16
    ).eval()


def stated(module: Any) -> Any:
    """What bitsandbytes says that a fresh module holds."""
    functional = pytest.importorskip("bitsandbytes").functional
    weight = module.weight
    if weight.dtype == torch.int8:
        return functional.int8_vectorwise_dequant(weight.data, weight.SCB)
    return functional.dequantize_4bit(weight.data, weight.quant_state)


# What bfloat16 leaves of a change, which is small where it is one neuron's.
@pytest.mark.parametrize(("hinge", "most"), [("off", 0.1), ("on", 0.3)])
@pytest.mark.parametrize("kind", BNB)
@pytest.mark.usefixtures("quiet")
def test_bitsandbytes(
    saved: Path, tmp_path: Path, kind: str, hinge: Any, most: float
) -> None:
    """What is made on a quantised model acts there through peft as it was measured."""
    peft = pytest.importorskip("peft")
    model = load_quantised(saved, **BNB[kind])
    weights = [stated(layer.mlp.down_proj) for layer in model.model.layers]
    for target, weight in zip(find_targets(model), weights, strict=True):
        assert is_quantised(target.module)
        error = (target.weight.float() - weight.float()).norm()
        assert error <= 4e-3 * weight.float().norm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    change: Intervention = ci.defend(
        model, tokenizer, forbid=["bad"], calibration=LITTLE, hinge=hinge
    )
    name = type(model.model.layers[1].mlp.down_proj).__name__
    with pytest.raises(InterventionError, match=REFUSED.format(name)):
        change.apply(model)
    base = logits(model)
    with export.AdapterIntervention(change).applied(model):
        expected = logits(model)
    place = tmp_path / "adapter"
    # Of an untrained model nothing is expected.
    export.lora(change, place, base=str(saved), beyond_limits=True)
    fresh = load_quantised(saved, **BNB[kind])
    adapted = peft.PeftModel.from_pretrained(fresh, place).eval()
    assert (logits(adapted) - expected).norm() <= most * (expected - base).norm()


@pytest.mark.parametrize("kind", ["8 bit", "4 bit"])
@pytest.mark.usefixtures("quiet")
def test_gradients_of_bitsandbytes(saved: Path, kind: str) -> None:
    """A change towards refusals is found where gradients pass, and else refused."""
    model = load_quantised(saved, **BNB[kind])
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    options: dict[str, Any] = {
        "method": "tsr", "harmful": ["How to lie?", "How to rob?"] * 3,
        "layers": [1], "steps": 2, "answers": 4, "borderline": 4,
    }  # fmt: skip
    module = model.model.layers[1].mlp.down_proj
    if getattr(module, "support_avx512bf16_for_cpu", False):
        with pytest.raises(ModelError, match="Linear4bit that passes no gradient"):
            ci.defend(model, tokenizer, **options)
    else:
        found = ci.defend(model, tokenizer, **options)
        assert found.edits.keys() == {"model.layers.1.mlp.down_proj.weight"}


def gptqmodel_linear(base: Any, kind: str) -> Any:
    """Pack a projection as GPTQ or AWQ checkpoints do, each number to its nearest."""
    pytest.importorskip("gptqmodel", reason="gptqmodel is not installed")
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    group, (d_out, d_in) = 32, base.weight.shape
    scales = base.weight.detach().float().reshape(d_out, -1, group).abs().amax(2) / 7
    zeros = torch.full_like(scales, 8.0)
    new = TorchLinear if kind == "GPTQ" else AwqTorchLinear
    module = new(4, group, True, False, d_in, d_out, register_buffers=True)
    if kind == "GPTQ":
        groups = (torch.arange(d_in) // group).int()
        module.pack_original(base, scales, zeros, groups)
    else:
        module.pack(base, scales, zeros)
    module.post_init()
    return module.eval()


@pytest.mark.parametrize("kind", ["GPTQ", "AWQ"])
def test_gptq_and_awq(tiny_model: Any, tmp_path: Path, kind: str) -> None:
    peft = pytest.importorskip("peft")

    def quantised() -> Any:
        model = tiny_model("llama", **WIDTHS).half()
        for layer in model.model.layers:
            mlp = layer.mlp
            mlp.down_proj = gptqmodel_linear(mlp.down_proj, kind)
        return model

    original = tiny_model("llama", **WIDTHS).half().model.layers[3].mlp.down_proj
    model = quantised()
    (target,) = find_targets(model, [3])
    assert target.compute_dtype == torch.float16
    error = (target.weight - original.weight).norm()
    assert error <= 0.15 * original.weight.norm()
    if kind == "GPTQ":
        assert torch.equal(target.weight, target.module.dequantize_weight().T)
    check_gradients(model)
    change = random_intervention(model)
    name = type(target.module).__name__
    with pytest.raises(InterventionError, match=REFUSED.format(name)):
        change.apply(model)
    base = logits(model)
    with export.AdapterIntervention(change).applied(model):
        expected = logits(model)
    export.lora(change, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(quantised(), tmp_path / "adapter").eval()
    assert (logits(adapted) - expected).norm() <= 0.02 * (expected - base).norm()
