# SPDX-License-Identifier: Apache-2.0
"""ARR, away from the risk region: harmful answers become unlikely."""

from cintervene.methods.arr.account import account
from cintervene.methods.arr.config import ARRConfig
from cintervene.methods.registry import Method, register

__all__ = ["ARRConfig"]

register(
    Method(
        ARRConfig,
        "cintervene.methods.arr.method:solve",
        "do not answer requests",
        account,
    )
)
