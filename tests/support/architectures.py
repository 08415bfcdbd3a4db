# SPDX-License-Identifier: Apache-2.0
"""A tiny random model of each decoder-only architecture that transformers has.

`NAMES` are transformers' model types, with a variant after a dot where one model type
computes different things. The vocabulary is that of the embedded SmolLM2, so that words
and prompts can be made with its tokenizer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

VOCABULARY = 49152

# Small values of what configurations call their sizes. Each configuration takes those
# that it has.
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "dff": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "sliding_window": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Experts.
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # Attention through a low rank.
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    # Linear attention and state-space layers.
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "state_size": 16,
}

Options = dict[str, Any]


def _layers(*kinds: str) -> Options:
    return {"num_hidden_layers": len(kinds), "layer_types": list(kinds)}


LINEAR = _layers("linear_attention", "full_attention", "linear_attention")
SHARED: Options = {
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
}
# As many keys as queries; rotary halves of their own.
LATENT: Options = {"num_key_value_heads": 4}
ROTARY: Options = {"rotary_dim": 8}

# Model types that need no more than `SMALL`.
PLAIN = """
    afmoe apertus arcee aria_text biogpt bitnet bloom cohere2 cohere2_moe cpmant ctrl
    cwm deepseek_v4 diffllama doge dots1 ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon
    falcon_mamba flex_olmo flint gemma gemma2 gemma3_text gemma4_unified_text glm glm4
    glm4_moe gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss granitemoe
    granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe
    hy_v3 hy_v4 hyperclovax inkling2_text jais2 jetmoe kolibri1 laguna lfm3
    llama llama4_text mamba mellum mimo_v2_flash minimax minimax_m2 minimax_m3_vl_text
    ministral ministral3 mistral mixtral modernbert-decoder mpt nanochat nemotron olmo
    olmo2 olmo3 olmoe openai-gpt opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3
    qwen3_moe recurrent_gemma rwkv seed_oss smollm3 solar_open stablelm starcoder2
    vaultgemma xglm
"""

# Other values than those of `SMALL`, by name: a model type, or one with a variant.
CONFIGS: dict[str, Options] = {
    **{name: {} for name in PLAIN.split()},
    "llama.tied-biases": {
        "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
    },
    "falcon.sequential": {"alibi": True, "parallel_attn": False, "bias": True},
    "falcon.two-norms": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "opt.projected": {"word_embed_proj_dim": 32, "do_layer_norm_before": False},
    "granite": {
        "logits_scaling": 8.0, "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22, "attention_multiplier": 0.0156,
    },
    "granite_swa": {"logits_scaling": 8.0, "residual_multiplier": 0.22},
    "cohere": {"logit_scale": 0.0625},
    "bamba": {"attn_layer_indices": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {
            "hidden_size": 64, "ffn_hidden_size": 96, "moe_num_experts": 4,
            "moe_top_k": 2,
        },
    },
    "codegen": ROTARY,
    "gptj": ROTARY,
    "gpt_neo": {
        "num_layers": 2, "num_hidden_layers": 2,
        "attention_types": [[["global", "local"], 1]],
    },
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "deepseek_v32": LATENT,
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "minicpm3": LATENT,
    "youtu": LATENT,
    "axk1": LATENT,
    "axk2": LATENT,
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
        "intermediate_size": [96] * 4, "activation_sparsity_pattern": [0.0] * 4,
        "laurel_rank": 8,
    },
    "gemma4_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
        "global_head_dim": 16,
    },
    "gemma4_text.plain": {
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
    },
    "granitemoehybrid": LINEAR | {"shared_intermediate_size": 96},
    "granitemoehybrid.dense": LINEAR
    | {"shared_intermediate_size": 96, "num_local_experts": 0},
    "inkling_text": {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 16,
        "sliding_window_size": 32, "rel_extent": 64,
    },
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "lfm2": _layers("conv", "full_attention", "conv")
    | {"block_auto_adjust_ff_dim": False},
    "lfm2_moe": _layers("conv", "full_attention", "conv") | {"num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2},
    "nemotron_h": {"n_groups": 2},
    "olmo_hybrid": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR,
    "qwen3_next": LINEAR,
    "qwen3_next.dense": LINEAR | {"num_experts": 0},
    "qwen4_exp_text": LINEAR
    | {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16,
        "indexer_budget": 64, "indexer_compress_ratio": 4,
    },
    "xlstm": {"num_heads": 4, "qk_dim_factor": 1.0},
    "zamba": SHARED | {"n_mamba_heads": 2, "attention_head_dim": 32},
    "zamba2": SHARED | {"num_mem_blocks": 2},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip

VISION: Options = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "depth": 2,
    "num_attention_heads": 2,
    "num_heads": 2,
    "attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_hidden_size": 64,
    "embed_dim": 32,
    "vision_output_dim": 32,
    "default_output_length": 4,
}


def _sections(kind: str, *sections: int) -> Options:
    rope = {"rope_type": kind, "rope_theta": 1e4, "mrope_section": list(sections)}
    return {"rope_parameters": rope}


# Wrappers of a text decoder and a vision tower: other values for the text part.
WRAPPERS: dict[str, Options] = {
    "aya_vision": {},
    "cohere2_vision": {},
    "gemma3": {},
    "gemma4": CONFIGS["gemma4_text"],
    "glm4v": _sections("default", 2, 3, 3),
    "idefics3": {},
    "internvl": {},
    "lfm2_vl": CONFIGS["lfm2"],
    "llama4": {},
    "llava": {},
    "llava_next": {},
    "llava_onevision": {},
    "mistral3": {},
    "mllama": {"num_hidden_layers": 3, "cross_attention_layers": [1]},
    "paligemma": {},
    "qwen2_5_vl": _sections("default", 2, 3, 3),
    "qwen2_vl": _sections("default", 2, 3, 3),
    "qwen3_5": LINEAR,
    "qwen3_5_moe": LINEAR,
    "qwen3_vl": _sections("default", 4, 2, 2),
    "qwen3_vl_moe": _sections("default", 4, 2, 2),
    "smolvlm": {},
}

NAMES: tuple[str, ...] = tuple(sorted([*CONFIGS, *WRAPPERS]))


def config_of(name: str, vocabulary: int = VOCABULARY) -> Any:
    """The configuration of the named architecture."""
    sizes = SMALL | {"vocab_size": vocabulary}
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    kind = auto.CONFIG_MAPPING[name.partition(".")[0]]
    if name in CONFIGS:
        return kind(**_known(kind, sizes) | CONFIGS[name])
    values: Options = {}
    for key, part in kind.sub_configs.items():
        default = getattr(kind(), key)
        inner = type(default) if default is not None else part
        if key == "text_config":
            values[key] = _known(inner, sizes) | WRAPPERS[name]
        elif default is not None:
            values[key] = _known(inner, VISION)
        if key in values:
            values[key]["model_type"] = inner.model_type
    return kind(**values)


def build(name: str, vocabulary: int = VOCABULARY) -> Any:
    """A random float32 model of the named architecture, the same at every call."""
    torch = pytest.importorskip("torch")
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    config = config_of(name, vocabulary)
    if name in CONFIGS:
        kind = auto.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    else:
        kind = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
    return randomised(model.float().eval(), torch)


def _known(kind: Any, values: Options) -> Options:
    """Those of some values that a configuration has, under its own names for them."""
    fields = {field.name for field in dataclasses.fields(kind)}
    named = {kind.attribute_map.get(key, key): value for key, value in values.items()}
    return {key: value for key, value in named.items() if key in fields}


def randomised(model: Any, torch: Any) -> Any:
    """Give every parameter its own random value, of a size that keeps logits finite.

    Kernels of convolutions and what recurrences decay with keep their initial values
    and are moved a little.
    """
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=source)
            if parameter.ndim == 2 and "A_log" not in name:
                width = max(parameter.shape)
                scale = 0.35 if "embed" in name or "head" in name else 1.2 / width**0.5
                parameter.copy_(noise * scale)
            elif parameter.ndim == 3 and "conv" not in name:
                parameter.copy_(noise * 1.2 / max(parameter.shape[1:]) ** 0.5)
            else:
                parameter.add_(noise * 0.1)
    return model
