# SPDX-License-Identifier: Apache-2.0
"""Tiny models on disk that can speak, after a fashion."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.tiny_models import make_tiny_model


def save_tiny_model(directory: Path, kind: str = "llama", **changes: Any) -> Path:
    """Save a random model whose tokens are bytes; the first one of é is missing."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    from cintervene.models import loading

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    alphabet.remove("Ã")
    ids = {symbol: index for index, symbol in enumerate(["<end>", *alphabet])}
    base = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    base.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=base, eos_token="<end>"
    )
    options = {
        "vocab_size": len(ids),
        "max_position_embeddings": 1024,
        "num_hidden_layers": 2,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": 0,
    }
    model = make_tiny_model(kind, **(options | changes))
    with loading.quiet():
        model.bfloat16().save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


def work_little(patch: pytest.MonkeyPatch) -> None:
    """Let the commands look at a few words, prompts and texts only."""
    from cintervene import CalibrationSize, defend, evaluate

    size = CalibrationSize(
        starting=1, later=1, contrast_words=4, text_words=4, prompts=12,
        tune_prompts=4, answer_tokens=8,
    )  # fmt: skip
    sample = evaluate.EvaluationSize(
        **{field.name: 6 for field in fields(evaluate.EvaluationSize)}
    )

    def little(model: Any, tokenizer: Any, config: Any, **options: Any) -> Any:
        if getattr(config, "forbid", None):
            config = replace(config, calibration=size)
        return defend(model, tokenizer, config, **options)

    patch.setattr("cintervene.cli.commands.defend.defend", little)
    measure = partial(evaluate.measure, size=sample)
    for command in ("defend", "evaluate"):
        patch.setattr(f"cintervene.cli.commands.{command}.measure", measure)
