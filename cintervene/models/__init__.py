# SPDX-License-Identifier: Apache-2.0
"""Language models: loading them, finding what to change, watching it, changing it.

Needs the extra `hf` (torch, transformers, safetensors).
"""

from cintervene.models import _requirements  # noqa: F401
from cintervene.models.adversary import PromptAttack
from cintervene.models.avoiding import avoid_harm
from cintervene.models.capture import Captured, LayerStream, capture
from cintervene.models.defence import defend
from cintervene.models.edit import Edit
from cintervene.models.forbidding import keep_away
from cintervene.models.gating import GateOptions, gate_refusals
from cintervene.models.guard import Activity, Guard
from cintervene.models.intervention import Applied, Intervention
from cintervene.models.layerwise import PCROptions
from cintervene.models.loading import load
from cintervene.models.material import Budget
from cintervene.models.refusing import teach_refusal
from cintervene.models.safe_region import TSROptions
from cintervene.models.targets import (
    Decoder,
    Explanation,
    Target,
    explain,
    find_decoder,
    find_targets,
)
from cintervene.models.unembedding import Unembedding, find_unembedding
from cintervene.models.weights import rounded_change

__all__ = [
    "Activity",
    "Applied",
    "Budget",
    "Captured",
    "Decoder",
    "Edit",
    "Explanation",
    "GateOptions",
    "Guard",
    "Intervention",
    "LayerStream",
    "PCROptions",
    "PromptAttack",
    "TSROptions",
    "Target",
    "Unembedding",
    "avoid_harm",
    "capture",
    "defend",
    "explain",
    "find_decoder",
    "find_targets",
    "find_unembedding",
    "gate_refusals",
    "keep_away",
    "load",
    "rounded_change",
    "teach_refusal",
]
