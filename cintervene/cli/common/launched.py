# SPDX-License-Identifier: Apache-2.0
"""Commands that torchrun starts several times: who works, writes and speaks."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cintervene.cli.common.failures import Exit
from cintervene.errors import RankError
from cintervene.utils.ranks import apart, exchange, joined, patience, rank
from cintervene.utils.staging import StagedDirectory

__all__ = [
    "launched_rank",
    "own_device",
    "shares_work",
    "sharing",
    "staging",
    "verdict",
]

# What torchrun sets, and torch reads.
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The rank does all of any other command by itself.
SHARED = ("defend", "evaluate", "sweep")


def launched_rank() -> int | None:
    """Return the number of this process among those of a launcher, None without one."""
    launched = all(os.environ.get(name) for name in VARIABLES)
    return int(os.environ["RANK"]) if launched else None


def shares_work(arguments: Namespace) -> bool:
    """Whether all ranks take part in a command, or the first one does it."""
    return arguments.command in SHARED


@contextmanager
def sharing(arguments: Namespace) -> Iterator[None]:
    """Join the processes that a launcher started; nothing without one.

    Raises
    ------
    RankError
        They do not come together, or were given other arguments.
    """
    if launched_rank() is None or not shares_work(arguments):
        yield
        return
    from torch import distributed

    seconds = arguments.rank_timeout
    try:
        distributed.init_process_group("gloo", timeout=patience(seconds))
    except (RuntimeError, ValueError) as error:
        raise apart(error) from error
    with joined(seconds):
        _check_same(arguments)
        yield
    distributed.destroy_process_group()


def _check_same(arguments: Namespace) -> None:
    values = dict(vars(arguments))
    # A set, whose order is another one in each process.
    del values["flags"]
    given = exchange("the arguments", lambda: str(values))
    if len(set(given)) > 1:
        raise RankError(
            f"ranks: got different arguments, {given}; give all of them the same"
        )


def staging(out: Path | None) -> StagedDirectory | nullcontext[None]:
    """Where results are collected; nowhere without a place, or on other ranks."""
    return nullcontext() if out is None or rank() > 0 else StagedDirectory(out)


def verdict(reached: bool) -> Exit:
    """The exit code of what was done and written, whether or not it is good enough.

    A launcher would take a code that is not 0 for a process that failed.
    """
    launched = launched_rank() is not None
    return Exit.DONE if reached or launched else Exit.GOAL_NOT_REACHED


def own_device(device: str) -> str:
    """The device of this process where only the kind is named."""
    local = os.environ.get("LOCAL_RANK")
    if launched_rank() is None or local is None or device in ("cpu", "meta"):
        return device
    return device if ":" in device else f"{device}:{local}"
