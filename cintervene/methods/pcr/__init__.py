# SPDX-License-Identifier: Apache-2.0
"""PCR, point-constrained regions: the least change that keeps outputs away."""

from cintervene.methods.pcr.account import account
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.registry import Method, register

__all__ = ["PCRConfig"]

register(
    Method(
        PCRConfig, "cintervene.methods.pcr.method:solve", "do not say words", account
    )
)
