# SPDX-License-Identifier: Apache-2.0
"""Interventions in the forms that are deployed: adapters, checkpoints, model cards.

Needs the extra `hf` (torch, transformers, safetensors).
"""

from cintervene.export.artefact import Artefact
from cintervene.export.attached import Attached
from cintervene.export.lora import read_lora
from cintervene.export.lora import save_lora as lora

__all__ = ["Artefact", "Attached", "lora", "read_lora"]
