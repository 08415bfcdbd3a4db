# SPDX-License-Identifier: Apache-2.0
"""The methods: each a folder, described once in its `config.py`, that registers itself.

To add one, see CONTRIBUTING.md.
"""

from cintervene.methods.pcr import PCRConfig
from cintervene.methods.tsr import TSRConfig

from cintervene.methods.arr import ARRConfig  # isort: skip
from cintervene.methods.gate import GateConfig
from cintervene.methods.guard import GuardConfig

__all__ = ["ARRConfig", "GateConfig", "GuardConfig", "PCRConfig", "TSRConfig"]
