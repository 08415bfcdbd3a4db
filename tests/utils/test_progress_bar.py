# SPDX-License-Identifier: Apache-2.0
"""Progress for whoever asks for it: lines in files, bars in notebooks."""

import io
import sys
from types import SimpleNamespace

import pytest

import cintervene as ci


def test_lines_where_there_is_no_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    shown = ci.ProgressBar()
    shown("capture", 0, 2)
    shown("capture", 2, 2)
    assert stream.getvalue().startswith("capture ...\ncapture: done in ")


def test_a_bar_in_a_notebook(monkeypatch):
    pytest.importorskip("tqdm")
    from tqdm import auto, std

    made = []

    class Bar(std.tqdm):
        """Draws nothing, and is kept."""

        def __init__(self, **options):
            made.append(options)
            super().__init__(**options, file=io.StringIO())

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(auto, "tqdm", Bar)
    shown = ci.ProgressBar()
    shown("capture", 0, 4)
    shown("capture", 3, 4)
    bar = shown._bar
    assert (bar.n, bar.total, bar.desc) == (3, 4, "capture")
    shown("solve", 4, 4)
    assert bar.disable
    assert [options["desc"] for options in made] == ["capture", "solve"]
    # What the notebook puts its own bar in the place of.
    assert all("{bar}" in options["bar_format"] for options in made)
    assert all("{remaining}" in options["bar_format"] for options in made)
