# SPDX-License-Identifier: Apache-2.0
"""The command on two machines, of which the second is switched off in the middle.

In place of `-m cintervene` for the agents of torchrun, with a process each.
"""

from __future__ import annotations

import os
import signal
import sys

from cintervene.cli import entry
from support.rank_processes import Mishap


def switch_off() -> None:
    """End the agent, and then this process."""
    for process in (os.getppid(), os.getpid()):
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        Mishap("likelihoods of tokens", switch_off).prepare()
    sys.exit(entry.main(sys.argv[1:]))
