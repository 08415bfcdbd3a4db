# SPDX-License-Identifier: Apache-2.0
"""TSR, towards the safe region: a small change after which requests are refused."""

from cintervene.methods.registry import Method, register
from cintervene.methods.tsr.account import account
from cintervene.methods.tsr.config import TSRConfig

__all__ = ["TSRConfig"]

register(
    Method(TSRConfig, "cintervene.methods.tsr.method:solve", "refuse requests", account)
)
