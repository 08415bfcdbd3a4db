# SPDX-License-Identifier: Apache-2.0
"""What killed processes leave is removed, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cintervene.utils.staging import (
    StagedDirectory,
    check_place,
)

KILLED = """
import sys, time
from pathlib import Path
from cintervene.staging import StagedDirectory
with StagedDirectory(Path(sys.argv[1])) as stage:
    (stage.path / "big").write_bytes(bytes(1000))
    print(stage.path, flush=True)
    time.sleep(60)
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
    process.communicate(timeout=60)


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
    assert left.parent == place
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
