# SPDX-License-Identifier: Apache-2.0
"""Defences to compare with that leave the weights alone; they can be nested."""

from cintervene.baselines.answering import Answerer, Generation, Intervened, Undefended
from cintervene.baselines.bad_words import BadWords
from cintervene.baselines.guarded import Guarded
from cintervene.baselines.reminder import SelfReminder
from cintervene.baselines.smoothllm import SmoothLLM

__all__ = [
    "Answerer",
    "BadWords",
    "Generation",
    "Guarded",
    "Intervened",
    "SelfReminder",
    "SmoothLLM",
    "Undefended",
]
