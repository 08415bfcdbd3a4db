# SPDX-License-Identifier: Apache-2.0
"""From arguments to an exit code: every failure ends here, in one line."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import TextIOWrapper
from types import FrameType, ModuleType
from typing import TextIO

from cintervene.cli.arguments.parser import build_parser
from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit, failure, with_flags
from cintervene.cli.common.launched import launched_rank, shares_work, sharing
from cintervene.errors import RankError
from cintervene.utils.escaping import printable

QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.
    """
    flags: frozenset[str] = frozenset()
    try:
        words = sys.argv[1:] if argv is None else argv
        command = next((word for word in words if not word.startswith("-")), "")
        arguments = build_parser(command).parse_args(words)
        flags = arguments.flags
        if argv is None:
            _prepare_process()
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted; nothing is left half written")
        # Where Ctrl-C came into code that another `exec` ran, as imports do, CPython
        # notes it as unhandled and ends by the signal; each `exec` begins a new note.
        exec("")
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python shall not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.IO
    except Exception as error:
        code = _fail(error, flags)
    return int(code)


def _run(arguments: Namespace) -> Exit:
    is_first = not launched_rank()
    if not is_first and not shares_work(arguments):
        return Exit.DONE
    # Here, because the commands import torch and that takes seconds; and before ranks
    # are joined, for no other one knows what a machine lacks.
    module = import_module(f"cintervene.cli.commands.{arguments.module}")
    if is_first:
        return _run_aloud(module, arguments, sys.stderr)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            return _run_aloud(module, arguments, nowhere)
    except RankError:
        raise
    except Exception as error:
        # The first rank raises it too, and says so.
        known = failure(error)
        return Exit.BUG if known is None else known[0]


def _run_aloud(module: ModuleType, arguments: Namespace, stream: TextIO) -> Exit:
    console = Console(stream)
    try:
        with sharing(arguments):
            code: Exit = module.run(arguments, console)
    finally:
        console.close()
    return code


def _fail(error: Exception, flags: Collection[str]) -> Exit:
    known = failure(error)
    if known is None:
        traceback.print_exception(error)
        _say("this is a bug; please report it with the lines above")
        return Exit.BUG
    code, line = known
    _say(with_flags(line, flags))
    return code


def _say(line: str) -> None:
    print(f"cintervene: {printable(line)}", file=sys.stderr, flush=True)


def _prepare_process() -> None:
    """Begin anew with threads that do not spin, and end cleanly when asked to.

    Threads that wait by spinning take the cores from those that work: with other
    programs running, everything gets many times slower. OpenMP's (torch's and ours)
    can be told to sleep; NumPy's OpenBLAS cannot, so it gets one thread, and here it
    only does small problems. Both read the environment when they are loaded, which
    importing this package has done by now. That is for a program to decide, so the
    library itself does not.
    """
    missing = {name: value for name, value in QUIET.items() if name not in os.environ}
    if missing:
        os.environ.update(missing)
        os.execv(sys.executable, sys.orig_argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What an encoding lacks is written as an escape, and ends no long run.
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    _say(f"ended by {signal.Signals(number).name}; nothing is left half written")
    raise SystemExit(128 + number)
