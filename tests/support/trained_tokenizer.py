# SPDX-License-Identifier: Apache-2.0
"""A small tokenizer of bytes and what often stands together, made on the spot."""

from __future__ import annotations

from typing import Any

import pytest

from cintervene import data


def train_tokenizer(size: int) -> Any:
    """A tokenizer of transformers with `size` tokens, the same at every call.

    Trained on the package's own prompts, of which it makes a third as many tokens as
    they have characters.
    """
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [*data.benign_prompts("train"), *data.harmful_prompts("train")]
    made.train_from_iterator([prompt.text for prompt in prompts], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
