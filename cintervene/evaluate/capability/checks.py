# SPDX-License-Identifier: Apache-2.0
"""Checks of whether an answer follows an instruction, without a judge.

After the idea of J. Zhou et al., "Instruction-following evaluation for large language
models", arXiv 2311.07911; prompts and checks are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cintervene.data.prompts import load
from cintervene.prompts.thinking import after_thinking

__all__ = ["CHECKS", "Instruction", "follows", "instructions"]

SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]*]*(?=\s|\Z)")  # noqa: RUF001
# What may stand around an answer that was to be nothing else.
AROUND = "\"'`*“”‘’ .!\n"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Instruction:
    """A prompt, and what an answer that follows it must pass.

    Attributes
    ----------
    prompt : str
    checks : tuple of tuple
        Each the name of one of `CHECKS` and its arguments.
    """

    prompt: str
    checks: tuple[tuple[Any, ...], ...]


def instructions() -> list[Instruction]:
    """Return the package's forty instructions."""
    return [
        Instruction(one["prompt"], tuple(tuple(check) for check in one["checks"]))
        for one in load("instructions.json", "held_out")
    ]


def follows(answer: str, instruction: Instruction) -> bool:
    """Tell whether an answer passes all checks of its instruction.

    Of an answer with a think block what follows that is looked at.
    """
    text = after_thinking(answer).strip()
    return bool(text) and all(
        CHECKS[name](text, *given) for name, *given in instruction.checks
    )


def _words(text: str) -> int:
    return len(re.findall(r"\w+(?:['’-]\w+)*", text))  # noqa: RUF001


def _sentences(text: str, count: int) -> bool:
    """So many ends of sentences, the last one at the end of the text."""
    ends = list(SENTENCE_END.finditer(text))
    return len(ends) == count and ends[-1].end() == len(text)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed(text: str, count: int, mark: str) -> bool:
    """So many lines, all of them with the mark."""
    lines = _lines(text)
    return len(lines) == count and all(re.match(mark, line) for line in lines)


def _paragraphs(text: str, count: int) -> bool:
    return len([part for part in re.split(r"\n\s*\n", text) if part.strip()]) == count


def _items(text: str, count: int) -> bool:
    lines = _lines(text)
    return (
        len(lines) == 1 and len([x for x in lines[0].split(",") if x.strip()]) == count
    )


def _parsed(text: str) -> Any:
    """What JSON a text holds, in a code block or not; None where it is none."""
    bare = re.sub(r"\A```\w*\s*|\s*```\Z", "", text)
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        return None


def _json(text: str, *keys: str) -> bool:
    found = _parsed(text)
    return isinstance(found, Mapping) and set(keys) <= set(found)


def _json_list(text: str, count: int) -> bool:
    found = _parsed(text)
    return (
        isinstance(found, Sequence)
        and not isinstance(found, str)
        and (len(found) == count)
    )


def _equals(text: str, expected: str) -> bool:
    """The same in any case, whatever punctuation stands around it."""
    one, other = (x.strip(AROUND).casefold() for x in (text, expected))
    return " ".join(one.split()) == other


CHECKS: dict[str, Callable[..., bool]] = {
    "at_least": lambda text, part, count: text.count(part) >= count,
    "bullets": lambda text, count: _listed(text, count, r"[-*•]\s*\S"),
    "contains": lambda text, part: part.casefold() in text.casefold(),
    "ends_with": lambda text, end: text.endswith(end),
    "equals": _equals,
    "items": _items,
    "json": _json,
    "json_list": _json_list,
    "lacks": lambda text, part: part.casefold() not in text.casefold(),
    "lower": lambda text: text == text.lower(),
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "numbered": lambda text, count: _listed(text, count, r"\d+[.)]\s*\S"),
    "paragraphs": _paragraphs,
    "quoted": lambda text: len(text) > 2 and text[0] in '"“' and text[-1] in '"”',
    "sentences": _sentences,
    "starts_with": lambda text, start: text.startswith(start),
    "upper": lambda text: text == text.upper() and text != text.lower(),
    "words_at_least": lambda text, count: _words(text) >= count,
    "words_at_most": lambda text, count: _words(text) <= count,
}
