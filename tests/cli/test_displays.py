# SPDX-License-Identifier: Apache-2.0
"""Answers on a screen while they grow: wrapped, in columns, and as plain lines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.terminals import screen

from cintervene.cli.dialogue.displays import Columns, Lines, display_for
from cintervene.cli.dialogue.wrapping import cells, harmless, padded, wrapped

TEXTS = st.text("ab \n\u4e2d\u0301", max_size=60)


class Said:
    """An answer of so much text."""

    def __init__(self, whole: str) -> None:
        self.whole, self.length = whole, 0

    @property
    def text(self) -> str:
        return self.whole[: self.length]

    @property
    def done(self) -> bool:
        return self.length >= len(self.whole) + 1

    def step(self) -> None:
        self.length += 1


class Encoded(io.StringIO):
    encoding = "utf-8"


def watch(display: Any, answers: dict[str, Said]) -> None:
    """Let all of them grow by turns."""
    display.begin(list(answers))
    while not all(one.done for one in answers.values()):
        for one in answers.values():
            if not one.done:
                one.step()
        display.show(answers)
    display.end()


@given(TEXTS, st.integers(2, 12))
def test_lines_fit_and_only_the_last_one_changes(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    for end in range(len(text)):
        begun = wrapped(text[:end], width)
        assert lines[: len(begun) - 1] == begun[:-1]


def test_wrapping() -> None:
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("    indented code", 14) == ["    indented", "code"]
    assert wrapped("abcdefgh ij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("", 4) == [""]
    assert wrapped("\u4e2d\u6587\u4e2d", 4) == ["\u4e2d\u6587", "\u4e2d"]
    assert padded("\u4e2d", 4) == "\u4e2d  "


def test_nothing_moves_the_cursor() -> None:
    assert harmless("a\tb\x1b[2J\r\n") == "a    b\\x1b[2J\\r\n"


@given(TEXTS, TEXTS, st.integers(3, 9))
def test_columns_show_both_whole(left: str, right: str, height: int) -> None:
    stream = Encoded()
    watch(Columns(stream, 25, height), {"L": Said(left), "R": Said(right)})
    width = (25 - 1 - 3) // 2
    columns = [wrapped(text.rstrip("\n"), width) for text in (left, right)]
    length = max(map(len, columns))
    columns = [[*column, *[""] * (length - len(column))] for column in columns]
    expected = [
        f"{padded(a, width)} \u2502 {b}".rstrip() for a, b in zip(*columns, strict=True)
    ]
    shown = [row.rstrip() for row in screen(stream.getvalue(), height)]
    assert shown == [f"{'L':{width}} \u2502 R", *expected, "", ""]


def test_a_line_is_seen_before_it_ends() -> None:
    stream = Encoded()
    display = Columns(stream, 25, 10)
    answers = {"L": Said("one two"), "R": Said("three")}
    display.begin(list(answers))
    for one in answers.values():
        one.length = 3
    display.show(answers)  # type: ignore[arg-type]
    assert "one" in stream.getvalue()
    assert "thr" in stream.getvalue()


def test_lines() -> None:
    stream = Encoded()
    display = Lines(stream)
    display.begin(["before", "after"])
    for title, text in (("before", "one\x07"), ("after", "two\n")):
        answers = {title: Said(text)}
        while not answers[title].done:
            answers[title].step()
            display.show(answers)  # type: ignore[arg-type]
    display.end()
    assert stream.getvalue() == "before:\none\\x07\n\nafter:\ntwo\n\n"


@pytest.mark.parametrize(
    ("terminal", "width", "name", "kind"),
    [
        (True, "120", "xterm", Columns),
        (True, "99", "xterm", Lines),
        (True, "120", "dumb", Lines),
        (False, "120", "xterm", Lines),
    ],
)
def test_columns_are_for_wide_terminals(
    terminal: bool, width: str, name: str, kind: type, monkeypatch: Any
) -> None:
    stream = Encoded()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERM", name)
    assert isinstance(display_for(stream, 2), kind)
    assert isinstance(display_for(stream, 1), Lines)


def test_a_bar_that_every_terminal_has() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    watch(Columns(stream, 25, 9), {"L": Said("a"), "R": Said("b")})
    stream.seek(0)
    assert stream.read().splitlines()[0] == "L          | R"
