# SPDX-License-Identifier: Apache-2.0
"""Tiny models that can speak, with a tokenizer of characters."""

from __future__ import annotations

from typing import Any

from support.characters import Characters
from support.tiny_models import make_tiny_model


def make_speaking_model(**changes: Any) -> tuple[Any, Characters]:
    tokenizer = Characters()
    options = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 512}
    return make_tiny_model("llama", **(options | changes)), tokenizer
