# SPDX-License-Identifier: Apache-2.0
"""Interventions in the forms that are deployed: adapters, checkpoints, model cards.

Needs the extra `hf` (torch, transformers, safetensors).
"""

from cintervene.export.artefact import Artefact
from cintervene.export.card import Origin, model_card
from cintervene.export.checkpoints import save_checkpoint as checkpoint
from cintervene.export.comparison import Comparison, Difference, compare
from cintervene.export.gguf_lora import save_gguf as gguf
from cintervene.export.peft_lora import read_lora
from cintervene.export.peft_lora import save_lora as lora
from cintervene.models.attached import Attached

__all__ = [
    "Artefact",
    "Attached",
    "Comparison",
    "Difference",
    "Origin",
    "checkpoint",
    "compare",
    "gguf",
    "lora",
    "model_card",
    "read_lora",
]
