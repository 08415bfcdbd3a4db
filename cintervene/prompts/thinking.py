# SPDX-License-Identifier: Apache-2.0
"""Think blocks: what models write between two marks before they answer."""

from __future__ import annotations

import re

__all__ = ["USUAL", "after_thinking", "think_marks"]

_NAME = r"(?:think|thinking|thought|reasoning)"
_OPENING = re.compile(rf"[<\[]\|?(?:start[_ ])?{_NAME}\|?[>\]]", re.IGNORECASE)
_CLOSING = re.compile(rf"[<\[]\|?(?:/|end[_ ]){_NAME}\|?[>\]]", re.IGNORECASE)
# Templates with channels, in which thoughts are the channel "analysis".
_CHANNEL = "<|channel|>"
_CHANNELS = (
    "<|channel|>analysis<|message|>",
    "<|end|><|start|>assistant<|channel|>final<|message|>",
)
USUAL = ("<think>", "</think>")


def think_marks(template: str) -> tuple[str, str]:
    """What stands before and behind thoughts in a chat template.

    The usual marks where it does not say: a model may be used with another template.
    """
    if _CHANNEL in template:
        return _CHANNELS
    opening, closing = _OPENING.search(template), _CLOSING.search(template)
    if opening and closing:
        return opening[0], closing[0]
    return USUAL


def after_thinking(answer: str) -> str:
    """What an answer says behind its thoughts.

    The block may have been begun by the prompt. Where it does not end, or nothing
    follows, the thoughts are all that there is: a model that refuses within them has
    refused.
    """
    thoughts, *behind = _CLOSING.split(answer)
    if behind and behind[-1].strip():
        return behind[-1]
    return _OPENING.sub("", thoughts, count=1)
