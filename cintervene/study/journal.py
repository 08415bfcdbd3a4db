# SPDX-License-Identifier: Apache-2.0
"""The file that records a study while it runs, so that it can be resumed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.study.results import CaseResult, Key
from cintervene.utils.files import sync
from cintervene.utils.json_text import parse_json
from cintervene.utils.ranks import of_one, rank
from cintervene.utils.staging import check_above

__all__ = ["NAME", "Journal"]

NAME = "journal.jsonl"


class Journal:
    """Cases and settings, one JSON object per line, on the disk once they are added.

    Lines are only ever added. A last line that was cut short, because the process or
    the machine stopped while it was written, is dropped when the file is opened. What
    fails before there is anything to go on with leaves no file: a command that is then
    mended would not agree with its settings. Where ranks share work, the first one
    keeps the file, and the others know what is in it.

    Parameters
    ----------
    out : Path
        Directory of the study, created if it does not exist. If it is not empty it
        must contain a journal.
    name : str, default "journal.jsonl"
        Of the file.
    holds : str, default "cases"
        What messages call that which settings are about.

    Attributes
    ----------
    directory : Path
        `out`.
    cases : dict of Key to CaseResult
    settings : dict
        Settings that all cases share, as JSON.
    """

    def __init__(self, out: Path, name: str = NAME, holds: str = "cases") -> None:
        self.directory = Path(out)
        self._name, self._holds = name, holds
        self.cases: dict[Key, CaseResult] = {}
        self.settings: dict[str, Any] = {}
        self._stream: FileIO | None = None
        self._follows = False
        self._made: list[Path] = []

    def __enter__(self) -> Journal:
        self._follows = rank() > 0
        self.settings, self.cases = of_one("the journal", self._open)
        return self

    def _open(self) -> tuple[dict[str, Any], dict[Key, CaseResult]]:
        """Open the file; what it holds."""
        path = self.directory / self._name
        check_resumable(self.directory, self._name, self._holds)
        places = (self.directory, *self.directory.parents)
        self._made = [place for place in places if not place.exists()]
        self.directory.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+b", buffering=0)
        try:
            _lock(stream, path)
            stream.seek(0)
            whole = stream.read()
            end = whole.rfind(b"\n") + 1
            self._read(whole[:end], path)
            stream.truncate(end)
            sync(self.directory)
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return self.settings, self.cases

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            if error is not None and not self.cases:
                self._withdraw()
            self._stream.close()
        self._stream = None

    def _withdraw(self) -> None:
        """Remove the file if nothing else is there, and the directories made for it."""
        path = self.directory / self._name
        if list(self.directory.iterdir()) == [path]:
            path.unlink()
            with suppress(OSError):
                for place in self._made:
                    place.rmdir()

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Record settings, or check them against those recorded.

        Raises
        ------
        ArgumentError
            A setting has another value than the one recorded.
        """
        new = {}
        for name, value in settings.items():
            plain = json.loads(json.dumps(value))
            if self.settings.get(name, plain) != plain:
                old, now = _different(self.settings[name], plain)
                raise ArgumentError(
                    f"out: {self.directory} holds {self._holds} with {name} {old}, got "
                    f"{now}; give a new directory, or the setting of those "
                    f"{self._holds}"
                )
            if name not in self.settings:
                new[name] = plain
        self._write({"setting": name, "value": new[name]} for name in new)
        self.settings |= new

    def add(self, cases: Iterable[CaseResult]) -> None:
        """Record cases; they are on the disk when this returns."""
        added = list(cases)
        self._write({"case": case.to_dict()} for case in added)
        self.cases |= {case.key: case for case in added}

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        if self._follows:
            return
        assert self._stream is not None, "the journal is not open"
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        # Answers can contain lone surrogates, which UTF-8 cannot encode.
        rest = memoryview("".join(lines).encode("utf-8", "replace"))
        end = self._stream.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
            os.fsync(self._stream.fileno())
        except BaseException:
            # What is added later must not follow half a line.
            with suppress(OSError):
                self._stream.truncate(end)
            raise

    def _read(self, content: bytes, path: Path) -> None:
        for number, record in _records(content, path):
            try:
                if isinstance(record.get("setting"), str):
                    self.settings[record["setting"]] = record["value"]
                else:
                    case = CaseResult.from_dict(record["case"])
                    self.cases[case.key] = case
            except (KeyError, TypeError, ValueError) as error:
                raise _unreadable(path, number) from error


def check_resumable(out: Path, name: str = NAME, holds: str = "cases") -> None:
    """Check that a study can be started or resumed in a directory.

    Parameters
    ----------
    out : Path
    name, holds
        See `Journal`.

    Raises
    ------
    ArgumentError
        It is not a directory, is below a file, or holds other files.
    """
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"out: {out} is not a directory; give another name")
    check_above(out)
    if out.is_dir() and not (out / name).exists():
        first = next(out.iterdir(), None)
        if first is not None:
            raise ArgumentError(
                f"out: {out} holds {first.name} but no {holds} to go on with; give a "
                "new directory"
            )


def _different(old: Any, new: Any) -> tuple[Any, Any]:
    """Two values that differ; of two tables only what differs."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old, new
    names = [n for n in {**old, **new} if old.get(n) != new.get(n)]
    first, second = ({n: one[n] for n in names if n in one} for one in (old, new))
    return first, second


def _records(content: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise _unreadable(path, number) from error
        if not isinstance(record, dict):
            raise _unreadable(path, number)
        yield number, record


def _unreadable(path: Path, number: int) -> ArgumentError:
    return ArgumentError(
        f"out: line {number} of {path} is not a record of a study; remove that line, "
        "or give a new directory"
    )


def _lock(stream: FileIO, path: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ArgumentError(
            f"out: another process is writing to {path}; wait for it, or give a new "
            "directory"
        ) from error
    except OSError:
        # This file system does not support locks.
        return
