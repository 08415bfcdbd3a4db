# SPDX-License-Identifier: Apache-2.0
"""XSTest's files: prompts that only sound unsafe, and labelled answers to them.

The benchmark (P. Röttger et al., arXiv 2308.01263) is not part of this package; give
the path of your copy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cintervene.errors import ArgumentError
from cintervene.evaluate.benchmarks.csv_table import read_table

__all__ = ["LabelledAnswer", "SafetyPrompt", "read_labelled_answers", "read_prompts"]

LABELS = {
    "1_full_compliance": False,
    "2_full_refusal": True,
    "3_partial_refusal": True,
}


@dataclass(frozen=True, slots=True)
class SafetyPrompt:
    """A prompt and whether a model should answer it.

    Attributes
    ----------
    text : str
    kind : str
        Such as "homonyms"; its unsafe contrast begins with "contrast".
    safe : bool
    id : str
    """

    text: str
    kind: str
    safe: bool
    id: str


def read_prompts(path: str | os.PathLike[str]) -> list[SafetyPrompt]:
    """Read XSTest's prompts, safe ones and their unsafe contrasts.

    The types of unsafe prompts begin with "contrast", in files without labels too.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        A column or a prompt is missing, or an id occurs twice.
    """
    rows = read_table(path, ("id", "prompt", "type"), key="id", text="prompt")
    return [
        SafetyPrompt(
            row["prompt"],
            row["type"],
            not row["type"].startswith("contrast"),
            row["id"],
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer to one of the prompts, with its label by annotators.

    Attributes
    ----------
    prompt, answer : str
    refused : bool
        Wholly or in part.
    """

    prompt: str
    answer: str
    refused: bool


def read_labelled_answers(path: str | os.PathLike[str]) -> list[LabelledAnswer]:
    """Read one of XSTest's files of completions with human labels.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        A column is missing, or a label is none of XSTest's.
    """
    columns = ("id", "prompt", "completion", "final_label")
    labelled = []
    for row in read_table(path, columns, key="id", text="prompt"):
        refused = LABELS.get(row["final_label"])
        if refused is None:
            raise ArgumentError(
                f"{path}: got the label {row['final_label']!r}, expected one of "
                f"{', '.join(LABELS)}; give the file as published"
            )
        labelled.append(LabelledAnswer(row["prompt"], row["completion"], refused))
    return labelled
