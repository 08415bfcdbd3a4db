# SPDX-License-Identifier: Apache-2.0
"""The guard: PCR at test time, solved for each sequence while a model generates."""

from cintervene.methods.guard.config import GuardConfig

__all__ = ["GuardConfig"]
