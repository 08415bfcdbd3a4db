# SPDX-License-Identifier: Apache-2.0
"""Judge that is a classifier of pairs of texts, as Hugging Face has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.models.offload import device_of
from cintervene.models.trace import evaluating

__all__ = ["Classifier", "refusing_label"]

REFUSAL = re.compile(r"refus|reject|declin|non.?compl", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Classifier:
    """Judge that classifies a request and its answer as a pair of texts.

    Attributes
    ----------
    model : nn.Module
        Of transformers, for sequence classification.
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
        """Tell for each answer whether the refusing label is the likeliest."""
        found: list[bool] = []
        device = device_of(self.model)
        for start in range(0, len(answers), self.batch):
            part = slice(start, start + self.batch)
            given = self.tokenizer(
                list(prompts[part]),
                list(answers[part]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(device)
            with evaluating(self.model):
                labels = self.model(**given).logits.argmax(dim=1)
            found += (labels == self.refusing).tolist()
        return found


def refusing_label(labels: dict[int, str]) -> int:
    """Find the one label whose name says that an answer refuses.

    Parameters
    ----------
    labels : dict of int to str
        ``config.id2label`` of a classifier.

    Raises
    ------
    ArgumentError
        None is called so, or several are.
    """
    found = [index for index, name in labels.items() if REFUSAL.search(name)]
    if len(found) != 1:
        raise ArgumentError(
            f"labels: got {', '.join(labels.values())}, expected one that is called "
            "refusal or rejection; give `Classifier` its index yourself"
        )
    return found[0]
