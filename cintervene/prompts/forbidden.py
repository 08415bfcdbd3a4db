# SPDX-License-Identifier: Apache-2.0
"""What is not to be said: words, what examples are about, answers to requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.prompts.calibration import (
    Calibration,
    CalibrationSize,
    gather,
)
from cintervene.prompts.request_calibration import (
    check_several,
    gather_examples,
    gather_requests,
)
from cintervene.prompts.spelling import words_to_forbid
from cintervene.utils.progress import Progress

__all__ = ["Kind", "Forbidden"]

Kind = Literal["forbid", "examples", "harmful"]
GATHER = {"forbid": gather, "examples": gather_examples, "harmful": gather_requests}


@dataclass(frozen=True)
class Forbidden:
    """What is not to be said.

    Attributes
    ----------
    kind : {"forbid", "examples", "harmful"}
        The argument by which it was given.
    texts : list of str
        Words, sentences or requests.
    """

    kind: Kind
    texts: list[str]

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        forbid: Sequence[str] | None,
        examples: Sequence[str] | None,
        harmful: Sequence[str] | None,
    ) -> Forbidden:
        """Check the arguments, of which one is not None.

        Raises
        ------
        ArgumentError
            None is given, or several, or one does not hold texts.
        """
        given: dict[Kind, Sequence[str] | None] = {
            "forbid": forbid,
            "examples": examples,
            "harmful": harmful,
        }
        named = [kind for kind, texts in given.items() if texts is not None]
        if len(named) != 1:
            raise ArgumentError(
                f"{', '.join(given)}: got {' and '.join(named) or 'none'}; expected "
                "exactly one of them. Give words as forbid=, sentences about a concept "
                "as examples=, or requests as harmful="
            )
        kind = named[0]
        if forbid is not None:
            return cls(kind, words_to_forbid(tokenizer, forbid))
        return cls(kind, check_several(kind, given[kind]))

    def gather(
        self,
        model: nn.Module,
        tokenizer: Any,
        preserve: Iterable[str],
        budget: CalibrationSize,
        progress: Progress,
    ) -> Calibration:
        """What to build from, and what to choose the strength on."""
        collect = GATHER[self.kind]
        return collect(model, tokenizer, self.texts, preserve, budget, progress)

    @property
    def recorded(self) -> dict[str, Any]:
        """What an intervention says about it: the words, or how many texts."""
        return {self.kind: self.texts if self.kind == "forbid" else len(self.texts)}
