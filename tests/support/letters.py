# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of letters that knows where words begin."""

from __future__ import annotations

from typing import Any


class Letters:
    """A tokenizer whose tokens are single characters, and a space with its letter."""

    unk_token_id = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, Any]:
        ids: list[int] = []
        for character in text:
            if ids and ids[-1] == ord(" ") and character != " ":
                ids[-1] = 1000 + ord(character)
            else:
                ids.append(ord(character))
        return {"input_ids": ids}

    def decode(self, ids: list[int]) -> str:
        return "".join(f" {chr(i - 1000)}" if i >= 1000 else chr(i) for i in ids)
