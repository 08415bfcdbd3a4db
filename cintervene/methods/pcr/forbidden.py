# SPDX-License-Identifier: Apache-2.0
"""What is not to be said: words, what examples are about, answers to requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene.methods.pcr.config import Kind, PCRConfig
from cintervene.prompts.calibration import (
    Calibration,
    gather,
)
from cintervene.prompts.request_calibration import (
    check_several,
    gather_examples,
    gather_requests,
)
from cintervene.prompts.spelling import words_to_forbid
from cintervene.utils.progress import Progress

__all__ = ["Forbidden"]

GATHER = {"forbid": gather, "examples": gather_examples, "harmful": gather_requests}


@dataclass(frozen=True)
class Forbidden:
    """What is not to be said.

    Attributes
    ----------
    kind : {"forbid", "examples", "harmful"}
        The parameter by which it was given.
    texts : list of str
        Words, sentences or requests.
    """

    kind: Kind
    texts: list[str]

    @classmethod
    def of(cls, tokenizer: Any, config: PCRConfig) -> Forbidden:
        """Check the texts of a configuration.

        Raises
        ------
        ArgumentError
            A word cannot be spelled, or there are too few texts.
        """
        texts = getattr(config, config.kind)
        if config.kind == "forbid":
            return cls("forbid", words_to_forbid(tokenizer, texts))
        return cls(config.kind, check_several(config.kind, texts))

    def gather(
        self, model: nn.Module, tokenizer: Any, config: PCRConfig, progress: Progress
    ) -> Calibration:
        """What to calibrate with, and what to choose the strength on."""
        collect = GATHER[self.kind]
        return collect(
            model, tokenizer, self.texts, config.preserve, config.calibration, progress
        )
