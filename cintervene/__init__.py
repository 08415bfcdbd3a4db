# SPDX-License-Identifier: Apache-2.0
"""Safer open-weight language models by the smallest possible change of weights."""

from cintervene.losses import set_nll

__version__ = "0.1.0"

__all__ = ["set_nll"]
