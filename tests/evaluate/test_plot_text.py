# SPDX-License-Identifier: Apache-2.0
"""Pictures show any words, and are the same each time."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("torch")
pytest.importorskip("transformers")

from matplotlib.figure import Figure

from cintervene.evaluate.report.plot_text import plot_text
from cintervene.evaluate.report.svg import svg

WORDS = (
    "$", "$x$", r"\$", "$$", r"$\frac{1}{", "a\x00b", "\x1b[2J", "\ud800", "中文",
    "_hidden", "x" * 10_000, "a\nb", "", "%", "{}", r"\frac", "\u202e", "\U0001d4b3",
    "^_^",
)  # fmt: skip


def drawn(word: str) -> str:
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    label = plot_text(word)
    axes.plot([1, 2], label=label)
    axes.annotate(label, (1, 1))
    axes.set_xticks([0], [label])
    axes.set_title(label)
    if label:
        axes.legend()
    return svg(figure, "x")


@pytest.mark.parametrize("word", WORDS)
def test_any_word_is_drawn(word: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(word).startswith("<svg")


def test_pictures_do_not_vary() -> None:
    assert drawn("word") == drawn("word")


def test_text_is_shown() -> None:
    assert plot_text("knife fight") == "knife fight"
    assert plot_text("$5") == r"\$5"
    assert plot_text("中") == r"\u4e2d"
    assert plot_text("_x") == " _x"
