# SPDX-License-Identifier: Apache-2.0
"""Projections are found by structure, and what is not one is refused by name."""

from __future__ import annotations

from typing import Any, get_args

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
nn = torch.nn

from support.architectures import build
from support.tiny_models import randomised

from cintervene.errors import ArgumentError, ModelError
from cintervene.models import explain, find_decoder, find_targets
from cintervene.models.blocks import stacked_parameters
from cintervene.utils.literals import Matrix

PATHS = {
    ("gpt2", "down_proj"): "transformer.h.{}.mlp.c_proj.weight",
    ("gpt2", "o_proj"): "transformer.h.{}.attn.c_proj.weight",
    "down_proj": "model.layers.{}.mlp.down_proj.weight",
    "o_proj": "model.layers.{}.self_attn.o_proj.weight",
}


def test_every_architecture(any_model: Any, matrix: Any) -> None:
    path = PATHS.get((any_model.config.model_type, matrix), PATHS[matrix])
    targets = find_targets(any_model, matrix=matrix)
    assert [target.name for target in targets] == [path.format(i) for i in range(4)]
    for index, target in enumerate(targets):
        assert target.layer == index
        assert target.matrix == matrix
        assert target.ends_layer == (matrix == "down_proj")
        assert target.weight is any_model.get_parameter(target.name)
        assert (target.d_in, target.d_out) == (
            target.weight.shape if target.transposed else target.weight.shape[::-1]
        )
        assert target.d_out == any_model.config.hidden_size
        assert target.dtype == torch.float32


def test_only_conv1d_is_transposed(any_model: Any, matrix: Any) -> None:
    flags = {target.transposed for target in find_targets(any_model, matrix=matrix)}
    assert flags == {any_model.config.model_type == "gpt2"}


def test_only_gemma_has_a_norm_after_the_projection(
    any_model: Any, matrix: Any
) -> None:
    after = [target.after for target in find_targets(any_model, matrix=matrix)]
    if any_model.config.model_type.startswith("gemma"):
        layers = find_decoder(any_model).layers
        names = {
            "down_proj": "post_feedforward_layernorm",
            "o_proj": "post_attention_layernorm",
        }
        assert after == [getattr(layer, names[matrix]) for layer in layers]
    else:
        assert after == [None] * 4


def test_nothing_is_left_behind(tiny_model: Any) -> None:
    model = tiny_model("llama").train()
    model.model.layers[1].eval()
    find_targets(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training
    assert not model.model.layers[1].mlp.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layer_indices(tiny_model: Any) -> None:
    model = tiny_model("llama")
    assert [t.layer for t in find_targets(model, [-1, 0])] == [0, 3]
    for twice in ([-1, 0, 3], [3, 3], [1, 3, -1]):
        with pytest.raises(ArgumentError, match=r"layers: got \[.*names layer 3 twice"):
            find_targets(model, twice)
    with pytest.raises(ArgumentError, match="layers: got 4, expected indices in"):
        find_targets(model, [4])
    with pytest.raises(ArgumentError, match="layers: got none"):
        find_targets(model, [])


def test_names_do_not_matter(tiny_model: Any) -> None:
    """A model whose modules carry misleading names is still read by its data flow."""

    class Renamed(nn.Module):
        def __init__(self, mlp: Any) -> None:
            super().__init__()
            self.down_proj, self.up, self.out = (
                mlp.gate_proj,
                mlp.up_proj,
                mlp.down_proj,
            )

        def forward(self, x: Any) -> Any:
            return self.out(nn.functional.silu(self.down_proj(x)) * self.up(x))

    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp = Renamed(layer.mlp)
    assert find_targets(model, [2])[0].name == "model.layers.2.mlp.out.weight"


def test_attention_written_after_the_mlp_is_not_taken_for_it(tiny_model: Any) -> None:
    """Nor where the widths are those of an MLP: attention mixes tokens."""
    model = tiny_model("llama", num_key_value_heads=4)

    def swapped(self: Any, x: Any, **kwargs: Any) -> Any:
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x + self.self_attn(hidden_states=self.input_layernorm(x), **kwargs)[0]

    layer = model.model.layers[1]
    layer.forward = swapped.__get__(layer)
    names = [find_targets(model, [1], matrix)[0].name for matrix in get_args(Matrix)]
    prefix = "model.layers.1."
    assert names == [
        f"{prefix}mlp.down_proj.weight",
        f"{prefix}self_attn.o_proj.weight",
    ]


def test_unknown_matrices_are_refused(tiny_model: Any) -> None:
    with pytest.raises(ArgumentError, match="matrix: got 'q_proj'; expected 'down_"):
        find_targets(tiny_model("llama"), matrix="q_proj")  # type: ignore[arg-type]


def test_attention_that_does_more_to_its_output_is_refused(tiny_model: Any) -> None:
    """A change of the projection would not be one of what enters the residual."""

    class Doubled(nn.Module):
        def __init__(self, attention: Any) -> None:
            super().__init__()
            self.q_proj, self.v_proj = attention.q_proj, attention.v_proj
            self.o_proj = attention.o_proj

        def forward(self, hidden_states: Any, **_: Any) -> Any:
            mixed = self.q_proj(hidden_states) + self.v_proj(hidden_states)
            mixed = mixed.cumsum(dim=1)
            return 2 * self.o_proj(mixed), None

    model = tiny_model("llama", num_key_value_heads=4)
    layer = model.model.layers[1]
    layer.self_attn = Doubled(layer.self_attn)
    found = explain(model, matrix="o_proj")
    assert [target.layer for target in found.targets] == [0, 2, 3]
    assert "not recognised as an attention's output projection" in found.refused[1]


def test_a_layer_without_attention_has_no_output_projection(tiny_model: Any) -> None:
    class Nothing(nn.Module):
        def forward(self, hidden_states: Any, **_: Any) -> Any:
            return 0.1 * hidden_states, None

    model = tiny_model("llama")
    model.model.layers[2].self_attn = Nothing()
    with pytest.raises(ModelError, match="no projection outside its MLP"):
        find_targets(model, [2], matrix="o_proj")
    assert len(find_targets(model)) == 4


def test_explain_lists_what_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj.weight = model.model.layers[
        2
    ].mlp.down_proj.weight
    found = explain(model)
    assert [target.layer for target in found.targets] == [0, 3]
    assert sorted(found.refused) == [1, 2]
    text = str(found)
    assert "model.layers.0.mlp.down_proj.weight  24 x 40  float32" in text
    assert "shared with model.layers.2.mlp.down_proj.weight" in text
    assert "2 matrices, 1,920 parameters" in text
    with pytest.raises(ModelError, match="layer 1 cannot be changed"):
        find_targets(model)


def test_stacked_experts(tiny_model: Any) -> None:
    config = transformers.MixtralConfig(
        vocab_size=97, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=3,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(
        ModelError, match=r"experts\..*stacks 3 matrices.*mixture of experts.*o_proj"
    ):
        find_targets(model)
    found = explain(randomised(model, torch), matrix="o_proj")
    assert len(found.targets) == 2
    stacked = sum(p.numel() for n, p in model.named_parameters() if "experts" in n)
    assert found.experts == stacked
    share = stacked / sum(p.numel() for p in model.parameters())
    assert f"experts are left alone: {stacked:,} parameters, {share:.1%}" in str(found)


def test_what_can_be_changed_instead_is_said() -> None:
    """Where it can: DBRX's attention ends in a plain projection, JetMoE's does not."""
    for name, can in (("dbrx", True), ("mixtral", True), ("jetmoe", False)):
        refused = explain(build(name, vocabulary=200)).refused
        assert len(refused) == 3
        assert all(('matrix="o_proj"' in why) == can for why in refused.values())


def test_blocks_of_a_diagonal_are_no_experts() -> None:
    """The gates of a recurrence are stored as RecurrentGemma has them."""
    gates = nn.Module()
    gates.decay = nn.Parameter(torch.ones(12))
    gates.blocks = nn.Parameter(torch.ones(3, 4, 4))
    assert not list(stacked_parameters(gates))
    gates.experts = nn.Parameter(torch.ones(3, 5, 5))
    assert [name for name, _ in stacked_parameters(gates)] == ["experts"]


def test_listed_experts(tiny_model: Any) -> None:
    class Experts(nn.Module):
        def __init__(self, mlp: Any, twin: Any) -> None:
            super().__init__()
            self.experts = nn.ModuleList([mlp, twin])

        def forward(self, x: Any) -> Any:
            return self.experts[0](x)

    model, twin = tiny_model("llama"), tiny_model("llama")
    for layer, other in zip(model.model.layers, twin.model.layers, strict=True):
        layer.mlp = Experts(layer.mlp, other.mlp)
    with pytest.raises(ModelError, match=r"experts\.0\.down_proj is in one of 2 Llama"):
        find_targets(model)


class Computed(nn.Linear):
    """Its weight is of another shape than what it multiplies with."""

    def __init__(self, base: Any) -> None:
        super().__init__(base.in_features, base.out_features, bias=False)
        self.dense = base.weight.data.clone()
        self.weight = nn.Parameter(torch.zeros(7, 3))

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.dense)


class Unknown(nn.Module):
    def __init__(self, base: Any) -> None:
        super().__init__()
        self.theta = nn.Parameter(base.weight.data.clone())

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.theta)


class Scaled(nn.Linear):
    def __init__(self, base: Any) -> None:
        super().__init__(base.in_features, base.out_features, bias=False)
        self.weight = base.weight

    def forward(self, x: Any) -> Any:
        return 1.5 * super().forward(x)


@pytest.mark.parametrize(
    ("wrapper", "reason"),
    [
        (Computed, r"down_proj\.weight is a Parameter of torch\.float32 and shape"),
        (Unknown, r"down_proj is a Unknown, expected nn\.Linear, Conv1D or"),
        (Scaled, r"down_proj does not return its input times its weight"),
    ],
)
def test_opaque_projections(tiny_model: Any, wrapper: Any, reason: str) -> None:
    model = tiny_model("llama")
    mlp = model.model.layers[3].mlp
    mlp.down_proj = wrapper(mlp.down_proj)
    with pytest.raises(ModelError, match=reason):
        find_targets(model, [3])
    assert len(find_targets(model, [0, 1, 2])) == 3


def test_parametrised_weight(tiny_model: Any) -> None:
    model = tiny_model("llama")
    nn.utils.parametrizations.weight_norm(model.model.layers[0].mlp.down_proj)
    with pytest.raises(ModelError, match=r"down_proj computes its weight"):
        find_targets(model, [0])


def test_adapter_has_to_be_merged(tiny_model: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["down_proj"])
    model = peft.get_peft_model(tiny_model("llama"), config)
    with pytest.raises(ModelError, match="merge the adapter first"):
        find_targets(model, [0])


def test_meta_parameters(tiny_model: Any) -> None:
    model = tiny_model("llama")
    model.model.layers[2].to("meta")
    with pytest.raises(ModelError, match=r"layers\.2\..*meta device"):
        find_targets(model)


def test_not_a_language_model() -> None:
    with pytest.raises(ModelError, match="expected a language model"):
        find_targets(nn.Linear(3, 3))


def test_encoder_decoder_is_refused() -> None:
    config = transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4
    )
    with pytest.raises(ModelError, match="decoder-only"):
        find_targets(transformers.T5ForConditionalGeneration(config))


def test_text_part_of_a_multimodal_model() -> None:
    """The vision tower has as many layers; only the text decoder is taken."""
    text = {
        "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=90,
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    targets = find_targets(model)
    assert [t.name for t in targets] == [
        f"model.language_model.layers.{i}.mlp.down_proj.weight" for i in range(2)
    ]
