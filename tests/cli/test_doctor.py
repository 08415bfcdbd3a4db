# SPDX-License-Identifier: Apache-2.0
"""``cintervene doctor``: what it finds here, and what it says where things lack."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

import cintervene as ci
from cintervene.cli import main
from cintervene.cli.common import machine

pytest.importorskip("torch")


def without(monkeypatch, *absent):
    """Have some packages look as if they were not installed."""

    def lookup(name):
        if name in absent:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(machine, "version", lookup)


def requiring(monkeypatch, *lines):
    monkeypatch.setattr(machine, "requires", lambda name: list(lines))


def test_it_tells_what_is_in_use(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = main(["doctor"])
    out, err = capsys.readouterr()
    assert code in (0, 1)
    assert err == ""
    config = ci.show_config()
    for fact in (
        ci.__version__, config["lapack"], np.__version__, version("torch"),
        "OMP_NUM_THREADS", f"kernels               {config['cpu']}\n",
    ):  # fmt: skip
        assert fact in out
    if sys.platform == "linux":
        assert "libgomp" in out


def test_json_has_the_same(capsys):
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["kernels"] == ci.show_config()["cpu"]
    assert found["problems"] == []
    by_name = {one["name"]: one for one in found["packages"]}
    assert by_name["numpy"]["found"] == np.__version__
    assert by_name["numpy"]["remedy"] == ""
    assert by_name["transformers"]["versions"]


def test_what_is_missing_comes_with_its_remedy(capsys, monkeypatch):
    requiring(monkeypatch, "numpy>=2.0", "torch; extra == 'hf'", "mypy; extra == 'dev'")
    without(monkeypatch, "torch", "peft", "bitsandbytes")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing (models): pip install 'torch'" in out
    assert "missing (adapters in peft): pip install 'peft'" in out
    assert "unknown without torch" in out
    assert "pip install 'cintervene[hf,plot]'" in out
    assert "mypy" not in out


def test_a_version_that_will_not_do_is_named(capsys, monkeypatch):
    requiring(monkeypatch, "numpy>=2.0", 'tqdm<2,>=1; extra == "hf"')
    pytest.importorskip("packaging")
    monkeypatch.setattr(
        machine, "version", lambda name: "9.0" if name == "tqdm" else version(name)
    )
    assert main(["doctor"]) == 1
    assert "9.0, expected <2,>=1 (models): pip install 'tqdm<2,>=1'" in (
        capsys.readouterr().out
    )


def test_nothing_missing_is_a_success(capsys, monkeypatch):
    requiring(monkeypatch, "numpy>=2.0")
    without(monkeypatch, "peft", "bitsandbytes")
    assert main(["doctor"]) == 0
    assert "All commands can run" in capsys.readouterr().out


def test_a_library_that_cannot_be_loaded_is_a_problem(capsys, monkeypatch):
    requiring(monkeypatch, "numpy>=2.0")

    def broken(name):
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(machine, "import_module", broken)
    monkeypatch.setattr(machine, "_fits", lambda there, versions: True)
    assert main(["doctor"]) == 1
    assert "cannot be loaded: libcudart.so" in capsys.readouterr().out


def test_what_the_system_does_not_tell_is_unknown(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: "")
    facts = machine.platform_facts()
    assert facts["memory"] == facts["openmp"] == "unknown"


def test_a_core_that_proves_nothing_is_a_problem(capsys, monkeypatch):
    monkeypatch.setattr("cintervene.cli.commands.doctor.computes", lambda: False)
    assert main(["doctor"]) == 1
    assert "problem: the core" in capsys.readouterr().out
