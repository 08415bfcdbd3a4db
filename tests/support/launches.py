# SPDX-License-Identifier: Apache-2.0
"""Programs of this folder and commands of the package, in processes of their own."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["ENVIRONMENT", "free_port"]

TESTS = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
}  # fmt: skip
# None is given twice, for whoever got one may not have bound it yet.
_PORTS = iter(range(20_000 + os.getpid() % 10_000, 32_000))


def free_port() -> int:
    """A port that the system gives nobody who asks for any, as other tests do."""
    for port in _PORTS:
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
