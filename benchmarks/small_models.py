# SPDX-License-Identifier: Apache-2.0
"""A small random model with a tokenizer's vocabulary, and the tokens that pass it."""

import torch
import transformers


def small_model(tokenizer, layers=6):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, max_position_embeddings=2048,
        hidden_size=64, intermediate_size=192, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def counted(model):
    """Counts of tokens that pass the layers, as they grow."""
    counts = [0]

    def count(_module, args, _output):
        counts[0] += args[0].shape[0] * args[0].shape[1]

    for layer in model.model.layers:
        layer.register_forward_hook(count)
    return counts
