# SPDX-License-Identifier: Apache-2.0
"""Filling templates with a request: as it is, in halves, or encoded."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable, Sequence

__all__ = ["fill_in_turn", "fill_template", "is_encoded"]

LEET = str.maketrans("aeiostAEIOST", "431057431057")


def fill_template(template: str, request: str) -> str:
    """Fill the placeholders of a template with a request.

    Parameters
    ----------
    template : str
        With ``{request}``, ``{first}`` and ``{second}`` for its halves, ``{base64}``,
        ``{rot13}`` or ``{leet}``; other braces are left as they are.
    request : str
    """

    def form(match: re.Match[str]) -> str:
        return FORMS[match[1]](request)

    return re.sub(rf"\{{({'|'.join(FORMS)})\}}", form, template)


def fill_in_turn(templates: Sequence[str], turn: int, request: str) -> str:
    """Fill template number `turn`, counted modulo their number."""
    return fill_template(templates[turn % len(templates)], request)


def is_encoded(template: str) -> bool:
    """Whether a template encodes the request."""
    return any(f"{{{form}}}" in template for form in ENCODED)


def _half(second: bool) -> Callable[[str], str]:
    def half(text: str) -> str:
        words = text.split()
        middle = (len(words) + 1) // 2
        return " ".join(words[middle:] if second else words[:middle])

    return half


FORMS: dict[str, Callable[[str], str]] = {
    "request": str,
    "first": _half(second=False),
    "second": _half(second=True),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "leet": lambda text: text.translate(LEET),
}
ENCODED = ("base64", "rot13", "leet")
