# SPDX-License-Identifier: Apache-2.0
"""Programs of this folder and commands of the package, in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ENVIRONMENT"]

TESTS = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
}  # fmt: skip
