# SPDX-License-Identifier: Apache-2.0
"""Judge that wraps a sequence classifier of transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.models.offload import device_of
from cintervene.models.trace import evaluating
from cintervene.prompts.thinking import after_thinking

__all__ = ["Classifier", "refusing_label"]

REFUSAL = re.compile(r"refus|reject|declin|non.?compl", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Classifier:
    """Judge that classifies each request and its answer as a pair of texts.

    Attributes
    ----------
    model : nn.Module
        A model of transformers for sequence classification.
    tokenizer : Any
    refusing : int
        The label that says that an answer refuses (`refusing_label`).
    batch : int, default 16
        Answers at a time.
    """

    model: nn.Module
    tokenizer: Any
    refusing: int
    batch: int = 16

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Tell for each answer whether the refusing label is the most likely."""
        refused: list[bool] = []
        device = device_of(self.model)
        for start in range(0, len(answers), self.batch):
            part = slice(start, start + self.batch)
            inputs = self.tokenizer(
                list(prompts[part]),
                list(map(after_thinking, answers[part])),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(device)
            with evaluating(self.model):
                labels = self.model(**inputs).logits.argmax(dim=1)
            refused += (labels == self.refusing).tolist()
        return refused


def refusing_label(labels: dict[int, str]) -> int:
    """Find the one label whose name says that an answer refuses.

    Parameters
    ----------
    labels : dict of int to str
        ``config.id2label`` of a classifier.

    Raises
    ------
    ArgumentError
        No label has such a name, or several have.
    """
    refusing = [index for index, name in labels.items() if REFUSAL.search(name)]
    if len(refusing) != 1:
        raise ArgumentError(
            f"labels: got {', '.join(labels.values())}, expected one whose name says "
            "refusal or rejection; give `Classifier` its index as `refusing`"
        )
    return refusing[0]
