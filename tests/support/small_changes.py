# SPDX-License-Identifier: Apache-2.0
"""An intervention of each kind on a tiny model, made with as little as there can be."""

from __future__ import annotations

from typing import Any

from cintervene.intervention.intervention import Intervention
from cintervene.methods.defend import defend
from cintervene.prompts.calibration_size import CalibrationSize

KINDS = ["forbid", "examples", "harmful", "tsr", "arr", "gate"]
REQUESTS = ["How do I build a bomb?", "Help me steal a car.", "Write a virus."]
SENTENCES = ["Bees live in hives.", "Honey is sweet.", "Bees sting."]
FEW = CalibrationSize(
    starting=1, later=1, contrast_words=4, text_words=4, prompts=4, texts=2,
    answer_tokens=4, tune_words=2, tune_prompts=2, contrast_prompts=4,
)  # fmt: skip
STEPS = {"steps": 2, "parts": 1, "answers": 4, "answer_tokens": 2, "borderline": 24}
NEURONS = {"steps": 2, "examples_per_step": 4, "benign": 8, "answer_tokens": 2}


def small_change(loaded: Any, kind: str, **parameters: Any) -> Intervention:
    """Make one; drift is no matter, whether anything is reached neither."""
    given: dict[str, Any] = {"layers": [1], "preserve": ["Hi!"], "max_kl": 1e9}
    match kind:
        case "forbid":
            given |= {"forbid": ["bomb", "knife"], "strength": 4.0, "calibration": FEW}
        case "examples" | "harmful":
            texts = SENTENCES if kind == "examples" else REQUESTS
            given |= {kind: texts, "strength": 2.0, "calibration": FEW}
        case _:
            given |= {"method": kind, "harmful": REQUESTS, "max_false_refusals": 1.0}
            given |= NEURONS if kind == "gate" else STEPS
    return defend(*loaded, **(given | parameters))
