# SPDX-License-Identifier: Apache-2.0
"""Directories appear whole or not at all; what killed processes leave is removed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cintervene.errors import ArgumentError
from cintervene.utils import staging
from cintervene.utils.signals import uninterrupted
from cintervene.utils.staging import (
    StagedDirectory,
    check_place,
    try_place,
    try_writing,
)

KILLED = """
import sys, time
from pathlib import Path
from cintervene.utils.staging import StagedDirectory
with StagedDirectory(Path(sys.argv[1])) as stage:
    (stage.path / "big").write_bytes(bytes(1000))
    print(stage.path, flush=True)
    time.sleep(3600)
"""


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def start(place: Path) -> tuple[subprocess.Popen[str], Path]:
    argv = [sys.executable, "-c", KILLED, str(place)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)


@pytest.mark.parametrize("existing", [False, True])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, existing: bool) -> None:
    place = tmp_path / "out"
    if existing:
        place.mkdir()
    process, left = start(place)
    kill(process)
    assert (left / "big").is_file()
    assert place.is_dir() == existing
    with StagedDirectory(place) as stage:
        (stage.path / "x").touch()
        stage.commit()
    assert listing(tmp_path) == ["out", "out/x"]


def test_what_a_killed_process_left_inside_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A directory that somebody works in is not replaced.
    monkeypatch.chdir(tmp_path)
    place = Path()
    process, left = start(place)
    kill(process)
    assert left.parent.parent == tmp_path
    assert check_place(place)
    with StagedDirectory(place) as stage:
        (stage.path / "x").touch()
        stage.commit()
    assert listing(tmp_path) == ["x"]


def test_processes_at_work_are_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "out"
    process, theirs = start(place)
    try:
        with StagedDirectory(place) as stage:
            assert stage.path != theirs
            assert (theirs / "big").is_file()
        assert (theirs / "big").is_file()
    finally:
        kill(process)


@pytest.mark.parametrize(
    "name", [".out-backup", ".out-abcdefgh", ".out-ABCDEFGH.unfinished"]
)
def test_what_others_keep_there_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / ".out-abcdefgh.unfinished").touch()
    with StagedDirectory(tmp_path / "out") as stage:
        stage.commit()
    assert listing(tmp_path) == sorted([name, ".out-abcdefgh.unfinished", "out"])


def test_an_existing_directory_keeps_its_rights(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    place.chmod(0o2750)
    with StagedDirectory(place) as stage:
        stage.commit()
    assert place.stat().st_mode & 0o7777 == 0o2750


def test_results_of_another_process_are_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with StagedDirectory(place) as stage:
        (stage.path / "x").touch()
        place.mkdir()
        (place / "theirs").touch()
        with pytest.raises(OSError, match=os.strerror(39)):
            stage.commit()
    assert listing(tmp_path) == ["out", "out/theirs"]


@pytest.mark.parametrize("existing", [False, True])
def test_staging_commits_whole(tmp_path, existing):
    place = tmp_path / "a" / "out"
    if existing:
        place.mkdir(parents=True)
    with staging.StagedDirectory(place) as stage:
        (stage.path / "x").write_text("1", "utf-8")
        (stage.path / "y").write_text("2", "utf-8")
        if existing:
            assert not (place / "x").exists()
        else:
            assert not place.exists()
        stage.commit()
    assert listing(tmp_path) == ["a", "a/out", "a/out/x", "a/out/y"]
    assert (place / "y").read_text("utf-8") == "2"
    umask = os.umask(0)
    os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [False, True])
def test_staging_leaves_nothing(tmp_path, existing, error):
    place = tmp_path / "a" / "out"
    if existing:
        place.mkdir(parents=True)
    before = listing(tmp_path)

    def fail() -> None:
        with staging.StagedDirectory(place) as stage:
            (stage.path / "x").write_text("1", "utf-8")
            raise error

    with pytest.raises(error):
        fail()
    assert listing(tmp_path) == before


def test_staging_refuses_what_is_there(tmp_path):
    (tmp_path / "file").touch()
    for place, reason in (
        (tmp_path, r"is not empty \(it holds file\)"),
        (tmp_path / "file", "is not a directory"),
    ):
        with pytest.raises(ArgumentError, match=reason), staging.StagedDirectory(place):
            pass
    assert listing(tmp_path) == ["file"]


def test_staging_notices_a_full_disk_at_once(tmp_path, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging.os, "fsync", full)
    with (
        pytest.raises(OSError, match="No space left"),
        staging.StagedDirectory(tmp_path / "out"),
    ):
        pass
    assert listing(tmp_path) == []


def test_signals_wait_for_what_must_not_be_cut_short():
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [1]


@pytest.mark.parametrize("check", [check_place, try_place, StagedDirectory])
@pytest.mark.parametrize("below", ["file/out", "file/a/b/out", "link/out"])
def test_nothing_is_below_a_file(tmp_path: Path, below: str, check: Any) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(ArgumentError, match=r"out: got .*, expected .* give another"):
        # The directory is only looked for when it is entered.
        getattr(check(tmp_path / below), "__enter__", bool)()
    assert listing(tmp_path) == ["file", "link"]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("place", ["out", "a/b/out"])
def test_a_place_that_is_tried_stays_as_it_was(
    tmp_path: Path, place: str, existing: bool
) -> None:
    if existing:
        (tmp_path / place).mkdir(parents=True)
    before = listing(tmp_path)
    for check in (try_place, try_writing):
        check(tmp_path / place)
        assert listing(tmp_path) == before


@pytest.mark.parametrize("place", ["out", "a/out", "."])
def test_a_place_where_nothing_can_be_made_is_refused_as_a_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    # Who runs the tests may write everywhere.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "mkdir", refuse)
    for check in (
        try_place, try_writing, lambda one: StagedDirectory(one).__enter__(),
    ):  # fmt: skip
        with pytest.raises(PermissionError):
            check(Path(place))
