# SPDX-License-Identifier: Apache-2.0
"""Runs writers in forked processes that are killed, or fail, at a chosen call.

`write_faults.c` is preloaded into the process that this module is run in, and counts.
What a directory holds after each fault is compared with what it held before and after a
run without one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
# When it was written differs, in records and on pages.
TIMES = re.compile(rb'"written": "[^"]*"|written \d{4}-[-+:T\d]*')
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
Files = Mapping[str, str]


@dataclass(frozen=True)
class Writer:
    """Something that writes files.

    Attributes
    ----------
    name : str
    prepare : callable
        Makes what there is beforehand in an empty directory.
    write : callable
        Writes into it.
    read : callable
        Reads what was written as its users do; raises where there is nothing whole.
    again : bool
        Whether it writes once more to what it wrote already, or refuses to.
    lenient : bool
        Whether it goes on where nothing can be written.
    """

    name: str
    prepare: Callable[[Path], None]
    write: Callable[[Path], None]
    read: Callable[[Path], object]
    again: bool = True
    lenient: bool = False


@dataclass
class Outcome:
    """What was found after a fault.

    Attributes
    ----------
    writer, fault : str
    point : int
        Which call it was.
    state : {"old", "new", "absent", "mixed"}
    told : bool
        Whether a writer that was not killed failed in the right way, or succeeded.
    rerun : str
        Why it failed; empty where it did not.
    left : list of str
        What is hidden after the rerun.
    """

    writer: str
    fault: str
    point: int
    state: str
    told: bool = True
    rerun: str = ""
    left: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return self.state != "mixed" and self.told and not self.rerun and not self.left


def build(directory: Path) -> Path:
    """Compile what is preloaded."""
    library = directory / "faults.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", str(HERE / "write_faults.c")]
    subprocess.run([*command, "-o", str(library), "-ldl"], check=True)
    return library


def run(script: Path, library: Path, *arguments: str) -> str:
    """Run a script with the library preloaded; return what it printed."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(HERE.parent.parent))),
    }
    if os.access("/dev/shm", os.W_OK):
        # A disk in memory waits for nothing when it is told to be through.
        environment["TMPDIR"] = "/dev/shm"
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def outcomes(writer: Writer, kills: int, errors: int) -> Iterator[Outcome]:
    """Try faults at so many calls of a writer, spread over all that it makes."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        old = _prepared(writer, base / "old")
        new = base / "new"
        shutil.copytree(old, new, symlinks=True)
        calls = _calls(writer, new)
        states = visible(old), visible(new)
        plan = [(point, 0, 0) for point in _spread(calls, kills)]
        plan += [
            (point, ERRORS[at % 3], at // 3 % 2)
            for at, point in enumerate(_spread(calls, errors))
        ]
        for at, (point, error, lasting) in enumerate(plan):
            root = base / str(at)
            shutil.copytree(old, root, symlinks=True)
            yield _one(writer, root, states, point, error, lasting)
            shutil.rmtree(root)


def visible(root: Path) -> Files:
    """The files that are not hidden, by name, with what they hold."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            content = TIMES.sub(b"", path.read_bytes())
            found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def hidden(root: Path) -> list[str]:
    """What is hidden, but for the file that locks a cache."""
    names = (str(path.relative_to(root)) for path in root.rglob(".*"))
    return [name for name in names if not name.endswith(".lock")]


def _one(
    writer: Writer, root: Path, states: tuple[Files, Files], point: int, error: int,
    lasting: int,
) -> Outcome:  # fmt: skip
    status = _forked(writer, root, point, error, lasting)
    fault = errno.errorcode[error] if error else "SIGKILL"
    state = state_of(writer, root, states)
    found = Outcome(writer.name, fault, point, state)
    if error:
        found.told = status == 3 or (status == 0 and (state == "new" or writer.lenient))
    status = _forked(writer, root, 0, 0, 0)
    if status and not (status == 3 and state == "new" and not writer.again):
        found.rerun = f"ended with {status}"
    elif visible(root) != states[1]:
        found.rerun = "made something else"
    found.left = hidden(root)
    return found


def state_of(writer: Writer, root: Path, states: tuple[Files, Files]) -> str:
    """Say what a directory holds."""
    files = visible(root)
    for name, state in zip(("new", "old"), reversed(states), strict=True):
        if files == state:
            return name
    try:
        writer.read(root)
    except Exception:
        return "absent"
    return "mixed"


def _prepared(writer: Writer, root: Path) -> Path:
    root.mkdir()
    writer.prepare(root)
    return root


def _calls(writer: Writer, root: Path) -> int:
    """Run a writer without a fault, and return how many calls it made."""
    read, write = os.pipe()
    if not (child := os.fork()):
        faults = _faults()
        faults.faults_arm(0, 0, 0)
        try:
            writer.write(root)
            os.write(write, str(faults.faults_seen()).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    said = os.read(read, 100)
    os.close(read)
    return int(said)


def _forked(writer: Writer, root: Path, point: int, error: int, lasting: int) -> int:
    """Run a writer in a process of its own: 0 done, 3 refused, 1 a bug, -9 killed."""
    if not (child := os.fork()):
        code = 1
        try:
            _faults().faults_arm(point, error, lasting)
            code = _ended(writer, root)
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _ended(writer: Writer, root: Path) -> int:
    from cintervene.errors import CinterveneError

    try:
        writer.write(root)
    except (OSError, CinterveneError) as error:
        if not _faults().faults_seen():
            traceback.print_exception(error)
        return 3
    return 0


def _faults() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers 1 ... count, evenly."""
    if count <= most:
        return list(range(1, count + 1))
    return [1 + at * count // most for at in range(most)]
