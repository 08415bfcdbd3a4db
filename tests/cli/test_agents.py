# SPDX-License-Identifier: Apache-2.0
"""Two agents of torchrun, as on two machines: one result, or both end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.launches import ENVIRONMENT, free_port
from support.saved_models import save_tiny_model

from cintervene.intervention.intervention import Intervention

SIZES = {
    "starting": 1, "later": 1, "contrast-words": 4, "text-words": 4, "texts": 2,
    "prompts": 12, "contrast-prompts": 4, "tune-prompts": 4, "tune-words": 2,
    "answer-tokens": 8, "sentence-tokens": 8,
}  # fmt: skip


def order(root: Path, out: Path) -> list[str]:
    """What defends from two words."""
    sizes = [
        text
        for name, number in SIZES.items()
        for text in (f"--calibration-{name}", str(number))
    ]
    return [
        "defend", "--model", str(root / "model"), "--forbid", str(root / "words.txt"),
        *sizes, "--no-evaluate", "--beyond-limits", "--json", "--out", str(out),
    ]  # fmt: skip


def launched(
    module: str, argv: list[str], processes: Sequence[int]
) -> list[tuple[int, str, str]]:
    """Run a module under agents with so many processes each; how the agents end."""
    where = ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    agents = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run",
                f"--nnodes={len(processes)}", f"--node-rank={number}", *where,
                f"--nproc-per-node={count}", "-m", module, *argv,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )
        for number, count in enumerate(processes)
    ]  # fmt: skip
    said = [agent.communicate() for agent in agents]
    return [(a.returncode, *both) for a, both in zip(agents, said, strict=True)]


def running(word: str) -> list[str]:
    """The processes that were started with an argument."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(process.name)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and words."""
    place = tmp_path_factory.mktemp("agents")
    save_tiny_model(place / "model")
    (place / "words.txt").write_text("bad\nworse\n", "utf-8")
    return place


def test_a_machine_that_is_switched_off_and_a_run_afterwards(root: Path) -> None:
    out, alone = root / "two", root / "one"
    argv = [*order(root, out), "--rank-timeout", "120"]
    (code, printed, said), gone = launched("support.switched_off", argv, (1, 1))
    assert code == 1
    assert printed == ""
    assert "cintervene: ranks: one of 2 did not answer rank 0" in said
    assert gone[0] == -signal.SIGKILL
    assert not out.exists()
    assert running(str(out)) == []

    (code, printed, said), second = launched("cintervene", argv, (1, 2))
    assert (code, second[0]) == (0, 0), said
    assert second[1] == ""
    assert json.loads(printed)["files"] == sorted(one.name for one in out.iterdir())
    subprocess.run(
        [sys.executable, "-m", "cintervene", *order(root, alone)],
        capture_output=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    found, expected = (
        Intervention.load(place / "intervention.safetensors").digest
        for place in (out, alone)
    )
    assert found == expected
    # Whoever writes next to the same place removes what was left there.
    assert {one.name for one in root.iterdir()} == {"model", "words.txt", "one", "two"}
