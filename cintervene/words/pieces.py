# SPDX-License-Identifier: Apache-2.0
"""What each token of a vocabulary writes, in the bytes of UTF-8.

Tokenizers write their pieces in ways of their own: bytes as letters (GPT-2), a mark for
a space before a word (SentencePiece) or behind it, a mark for what goes on with a word
(WordPiece). A piece may be a part of a character, which `decode` cannot show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["token_bytes"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of each token; special tokens, which write nothing, are left out."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = set(getattr(tokenizer, "all_special_ids", ()))
    special |= {token for token, one in added.items() if one.special}
    pieces = {
        token: piece
        for piece, token in tokenizer.get_vocab().items()
        if token not in special and token not in added
    }
    read = _reading(pieces.values())
    texts = {token: str(one) for token, one in added.items() if token not in special}
    return {
        **{token: read(piece) for token, piece in pieces.items()},
        **{token: text.encode(errors="replace") for token, text in texts.items()},
    }


def _byte_letters() -> dict[str, int]:
    """The letters with which byte-level tokenizers write bytes."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(256 + at): byte for at, byte in enumerate(hidden)}


_LETTERS = _byte_letters()


def _reading(pieces: Collection[str]) -> Callable[[str], bytes]:
    """How the pieces of a vocabulary are read, told by what most of them look like."""

    def share(fits: Callable[[str], bool]) -> float:
        return sum(map(fits, pieces)) / max(len(pieces), 1)

    if any("▁" in piece for piece in pieces):
        return _with_marked_spaces
    if share(lambda piece: piece.startswith("##")) > 0.01:
        return lambda piece: (
            piece[2:] if piece.startswith("##") else f" {piece}"
        ).encode()
    if share(lambda piece: piece.endswith("</w>")) > 0.01:
        return lambda piece: piece.replace("</w>", " ").encode()
    if share(lambda piece: piece.endswith("@@")) > 0.01:
        return lambda piece: (
            piece[:-2] if piece.endswith("@@") else f"{piece} "
        ).encode()
    if share(lambda piece: all(one in _LETTERS for one in piece)) > 0.95:
        return _byte_level
    return _with_marked_spaces


def _byte_level(piece: str) -> bytes:
    if all(one in _LETTERS for one in piece):
        return bytes(_LETTERS[one] for one in piece)
    return piece.encode(errors="replace")


def _with_marked_spaces(piece: str) -> bytes:
    byte = _BYTE.fullmatch(piece)
    if byte is not None:
        return bytes([int(byte[1], 16)])
    return piece.replace("▁", " ").encode(errors="replace")
