# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of single characters, for tiny models that have never read anything."""

from __future__ import annotations

import string
from collections.abc import Sequence

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


class Characters:
    """Just what cintervene asks of a tokenizer; other characters become "?"."""

    eos_token_id = 0
    unk_token_id = None
    chat_template = None
    vocab_size = len(CHARACTERS) + 1

    def __call__(
        self, text: str, add_special_tokens: bool = True
    ) -> dict[str, list[int]]:
        known = (one if one in CHARACTERS else "?" for one in text)
        return {"input_ids": [CHARACTERS.index(one) + 1 for one in known]}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(CHARACTERS[token - 1] for token in ids if token > 0)

    def get_vocab(self) -> dict[str, int]:
        return {one: token for token, one in enumerate(CHARACTERS, start=1)}
