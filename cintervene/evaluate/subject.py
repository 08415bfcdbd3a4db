# SPDX-License-Identifier: Apache-2.0
"""What all measurements of an intervention begin and end with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from cintervene.intervention.acceptance import check_intervention
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import template_options_of
from cintervene.models.wrapped import unwrapped
from cintervene.prompts.chat import chat_for
from cintervene.prompts.template import ChatTokenizer
from cintervene.utils.json_ready import json_ready

__all__ = ["Record", "subject"]


class Record:
    """Base of the dataclasses that hold what was measured."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it; numbers that are not finite become None."""
        record: dict[str, Any] = json_ready(asdict(self))  # type: ignore[call-overload]
        return record


def subject(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    template_options: Mapping[str, Any] | None,
) -> tuple[nn.Module, ChatTokenizer]:
    """Return the model itself and its tokenizer, once the intervention fits.

    The tokenizer has the modes of its chat template: those of these options, or of what
    the intervention was made with, or else all.

    Raises
    ------
    ArgumentError
        One of the three is something else.
    InterventionError
        The intervention does not fit the model, or is already applied.
    """
    check_intervention(intervention)
    model = unwrapped(model)
    if template_options is None:
        template_options = template_options_of(intervention.options)
    chat = chat_for(model, tokenizer, template_options)
    # A wrong base must be noticed before the work, not halfway through it.
    with intervention.applied(model):
        pass
    return model, chat
