# SPDX-License-Identifier: Apache-2.0
"""Language models: loading them, finding what to change, watching it, changing it.

Needs the extra `hf` (torch, transformers, safetensors).
"""

from cintervene.models import _requirements  # noqa: F401
from cintervene.models.capture import Captured, LayerStream, capture
from cintervene.models.loading import load
from cintervene.models.targets import (
    Decoder,
    Explanation,
    Target,
    explain,
    find_decoder,
    find_targets,
)
from cintervene.models.unembedding import Unembedding, find_unembedding

__all__ = [
    "Captured",
    "Decoder",
    "Explanation",
    "LayerStream",
    "Target",
    "Unembedding",
    "capture",
    "explain",
    "find_decoder",
    "find_targets",
    "find_unembedding",
    "load",
]
