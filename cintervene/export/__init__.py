# SPDX-License-Identifier: Apache-2.0
"""Interventions in the forms that are deployed: adapters, checkpoints, model cards.

Needs the extra `hf` (torch, transformers, safetensors).
"""

from cintervene.export.adapters.gguf_lora import save_gguf as gguf
from cintervene.export.adapters.peft_lora import read_lora
from cintervene.export.adapters.peft_lora import save_lora as lora
from cintervene.export.artefact import Artefact
from cintervene.export.cards.card import Origin, model_card
from cintervene.export.checkpoint.write import save_checkpoint as checkpoint
from cintervene.export.comparison.compare import Comparison, Difference, compare
from cintervene.intervention.adapter import AdapterIntervention

__all__ = [
    "AdapterIntervention",
    "Artefact",
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
