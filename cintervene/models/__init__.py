# SPDX-License-Identifier: Apache-2.0
"""Language models: loading them, and finding which of their weights can be changed.

Needs the extra `hf` (torch, transformers, safetensors).
"""

from cintervene.models import _requirements  # noqa: F401
from cintervene.models.decoder import Decoder, find_decoder
from cintervene.models.loading import load
from cintervene.models.parts import explain
from cintervene.models.targets import Explanation, Target, find_targets
from cintervene.models.unembedding import Unembedding, find_unembedding
from cintervene.models.weights import rounded_change

__all__ = [
    "Decoder",
    "Explanation",
    "Target",
    "Unembedding",
    "explain",
    "find_decoder",
    "find_targets",
    "find_unembedding",
    "load",
    "rounded_change",
]
