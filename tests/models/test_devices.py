# SPDX-License-Identifier: Apache-2.0
"""Devices that are not here, or hold no numbers, are refused before the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import cintervene as ci
from cintervene.cli import main
from cintervene.errors import ArgumentError
from cintervene.models import load
from cintervene.models.devices import named_device, usable_device

# Names of kinds that torch does not know, of its own ones without a device here, and
# numbers that no machine has.
UNKNOWN = ["nonsense", "", "CPU", "cuda:x", "cpu:-1", "cuda:-1", None, 1.5, ["cpu"]]
ABSENT = ["cuda:99", "mps:7", "xpu:9", "hpu", "vulkan", "mkldnn", "privateuseone", 99]
EMPTY = ["meta", torch.device("meta")]


@pytest.mark.parametrize("device", [*UNKNOWN, *ABSENT, *EMPTY])
def test_only_devices_that_compute_are_usable(device: Any) -> None:
    message = r"device: got .*, which .*; expected one of cpu.*; leave it out"
    with pytest.raises(ArgumentError, match=message):
        usable_device(device)
    # Before a model is looked for.
    with pytest.raises(ArgumentError, match=message):
        load("no such model", device=device)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_cpu_is_usable(device: Any) -> None:
    assert usable_device(device) == torch.device(device)


@pytest.mark.parametrize("device", EMPTY)
def test_what_holds_no_numbers_is_named_so(device: Any) -> None:
    with pytest.raises(ArgumentError, match="got 'meta', which holds no numbers"):
        named_device(device)


@pytest.mark.parametrize(
    "command",
    [
        ("defend", "--forbid", "obedience", "--out", "out"),
        ("defend", "--forbid", "obedience", "--out", "out", "--dry-run"),
        ("sweep", "--out", "out"),
        ("evaluate", "--defence", "none", "--out", "out"),
        ("chat",),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cuda:99", "nonsense"])
def test_commands_name_the_flag(
    command: tuple[str, ...],
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--model", "no such model", "--device", device]) == 2
    assert f"--device: got '{device}', which " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plan_is_of_any_device_with_numbers(tiny_model: Any) -> None:
    model = tiny_model("llama")
    here, there = (
        ci.plan(model, forbid=["bomb"], device=device)
        for device in (torch.device("cpu", 0), torch.device("cuda:99"))
    )
    assert here.device_bytes == 0 < there.device_bytes
    assert here == ci.plan(model, forbid=["bomb"])
    for device in ("meta", "nonsense"):
        with pytest.raises(ArgumentError, match=f"device: got '{device}'"):
            ci.plan(model, forbid=["bomb"], device=device)
