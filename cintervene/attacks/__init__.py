# SPDX-License-Identifier: Apache-2.0
"""Attacks on what a model should not do: with texts, with gradients, on the weights."""

from cintervene.attacks.ablation import DirectionAblated, refusal_direction
from cintervene.attacks.base import Attack, AttackCase, Request
from cintervene.attacks.conversations import Conversation, conversations
from cintervene.attacks.embedding import EmbeddingPGD
from cintervene.attacks.gcg import GCG
from cintervene.attacks.relaxed import RelaxedPGD
from cintervene.attacks.runner import read_cases, run_attack
from cintervene.attacks.templates import DirectRequest, Jailbreak, Prefill, families

__all__ = [
    "GCG",
    "Attack",
    "AttackCase",
    "Conversation",
    "DirectRequest",
    "DirectionAblated",
    "EmbeddingPGD",
    "Jailbreak",
    "Prefill",
    "RelaxedPGD",
    "Request",
    "conversations",
    "families",
    "read_cases",
    "refusal_direction",
    "run_attack",
]
