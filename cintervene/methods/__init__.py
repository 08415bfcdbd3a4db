# SPDX-License-Identifier: Apache-2.0
"""The methods: each a folder, described once in its `config.py`, that registers itself.

To add one, see CONTRIBUTING.md.
"""

# In the order in which they are listed.
# isort: off
from cintervene.methods.pcr import PCRConfig
from cintervene.methods.tsr import TSRConfig
from cintervene.methods.arr import ARRConfig
from cintervene.methods.gate import GateConfig
from cintervene.methods.guard import GuardConfig

# isort: on
__all__ = ["ARRConfig", "GateConfig", "GuardConfig", "PCRConfig", "TSRConfig"]
