# SPDX-License-Identifier: Apache-2.0
"""Gates: a few neurons that recognise harmful requests and refuse them."""

from cintervene.methods.gate.account import account
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.registry import Method, register

__all__ = ["GateConfig"]

register(
    Method(
        GateConfig,
        "cintervene.methods.gate.method:solve",
        "refuse requests by a few neurons",
        account,
    )
)
