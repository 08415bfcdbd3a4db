# SPDX-License-Identifier: Apache-2.0
"""HarmBench's files: behaviours in, test cases and completions out.

The benchmark itself (M. Mazeika et al., arXiv 2402.04249) is not part of this package;
give the path of your copy. Completions that are written here can be judged by its own
programs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cintervene.evaluate.benchmarks.csv_table import read_table
from cintervene.utils.files import write_atomically
from cintervene.utils.json_text import parse_json

__all__ = [
    "Behaviour", "completions_text", "read_behaviours", "read_completions",
    "write_completions",
]  # fmt: skip

COLUMNS = (
    "Behavior",
    "FunctionalCategory",
    "SemanticCategory",
    "Tags",
    "ContextString",
    "BehaviorID",
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One thing that a model should not do.

    Attributes
    ----------
    text : str
        The request itself.
    function, topic : str
        HarmBench's functional and semantic category.
    tags : tuple of str
    context : str
        What a contextual behaviour refers to; otherwise empty.
    id : str
    """

    text: str
    function: str
    topic: str
    tags: tuple[str, ...]
    context: str
    id: str

    @property
    def prompt(self) -> str:
        """The direct request, with its context in front as HarmBench puts it."""
        return f"{self.context}\n\n---\n\n{self.text}" if self.context else self.text


def read_behaviours(path: str | os.PathLike[str]) -> list[Behaviour]:
    """Read a CSV of text behaviours as HarmBench publishes it.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        It lacks a column, a request or an id, or an id occurs twice.
    """
    rows = read_table(path, COLUMNS, key="BehaviorID", text="Behavior")
    return [
        Behaviour(
            text=row["Behavior"],
            function=row["FunctionalCategory"],
            topic=row["SemanticCategory"],
            tags=tuple(tag.strip() for tag in row["Tags"].split(",") if tag.strip()),
            context=row["ContextString"],
            id=row["BehaviorID"],
        )
        for row in rows
    ]


def write_completions(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    test_cases: Sequence[str],
    answers: Sequence[str],
) -> None:
    """Write what `completions_text` returns, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    text = completions_text(ids, test_cases, answers)
    # Answers can contain lone surrogates, which UTF-8 cannot encode.
    write_atomically(Path(path), text.encode("utf-8", "replace"))


def completions_text(
    ids: Sequence[str], test_cases: Sequence[str], answers: Sequence[str]
) -> str:
    """Put answers into the JSON that HarmBench's judging scripts read.

    Parameters
    ----------
    ids : sequence of str, length n
        BehaviorID of each answer; one behaviour may have several.
    test_cases, answers : sequence of str, length n
        The prompt that was sent, and the model's answer.
    """
    completions: dict[str, list[dict[str, str]]] = {}
    for one, case, answer in zip(ids, test_cases, answers, strict=True):
        entry = {"test_case": case, "generation": answer}
        completions.setdefault(one, []).append(entry)
    return json.dumps(completions, indent=4, ensure_ascii=False)


def read_completions(
    path: str | os.PathLike[str],
) -> Mapping[str, list[dict[str, object]]]:
    """Read completions, with labels where a judge has added them."""
    completions: Mapping[str, list[dict[str, object]]] = parse_json(
        Path(path).read_text(encoding="utf-8")
    )
    return completions
