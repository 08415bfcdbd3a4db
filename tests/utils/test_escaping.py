# SPDX-License-Identifier: Apache-2.0
"""No format takes what models and users wrote for its own signs."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser

import pytest

from cintervene.utils.escaping import (
    csv_cell,
    html_text,
    json_printable,
    markdown_cell,
    markdown_code,
    markdown_text,
    printable,
    printable_lines,
)

HOSTILE = (
    "\x1b[2J\x9b31m\x00\u202e", "a\nb\r\nc", "<script>alert(1)</script>", "a|b", "`x`",
    "``", "*x* _y_", "[x](javascript:y)", "![x](//y)", "$a$", "\ud800", "=1+1",
    "http://x.y", "www.x.y", "\\|", "\u2028", "&lt;", "#", "\U000e0001",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_lines_are_printable(text: str) -> None:
    for line in (printable(text), markdown_text(text), markdown_code(text)):
        assert line.isprintable()
    assert printable_lines(text).count("\n") == text.count("\n")
    assert all(line.isprintable() for line in printable_lines(text).split("\n"))


@pytest.mark.parametrize(
    "text", ["plain", "Größe 5 %", "中文 ไทย", "\u0645\u06cc\u200c\u062e", "👩\u200d🔬"]
)
def test_what_is_harmless_stays(text: str) -> None:
    assert printable(text) == html_text(text) == markdown_text(text) == text
    assert csv_cell(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_json_stays_the_same(text: str) -> None:
    written = json_printable(json.dumps({"a": text}, ensure_ascii=False, indent=1))
    assert all(line.isprintable() for line in written.split("\n"))
    assert json.loads(written) == {"a": text}
    written.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_html_is_text(text: str) -> None:
    tags: list[str] = []
    read: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: tags.append(tag)  # type: ignore[method-assign]
    parser.handle_data = read.append  # type: ignore[method-assign]
    parser.feed(f'<p title="{html_text(text)}">{html_text(text)}</p>')
    parser.close()
    assert tags == ["p"]
    assert [c for c in "".join(read) if not c.isprintable() and c not in "\n\t"] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_cells_stay_in_their_column(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    parse = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse
    for cell in map(markdown_cell, (text, markdown_text(text), markdown_code(text))):
        tokens = parse(f"| a | b |\n| --- | --- |\n| {cell} | end |\n")
        cells = [one for one in tokens if one.type == "td_open"]
        assert len(cells) == 2, cell
    inner = next(
        t for t in parse(f"x {markdown_text(text)}") if t.type == "inline"
    ).children
    assert {one.type for one in inner} <= {"text", "text_special"}, inner


def test_code_is_shown_as_it_is() -> None:
    assert markdown_code("x") == "`x`"
    assert markdown_code("`x`") == "`` `x` ``"
    assert markdown_code("a``b") == "```a``b```"
    assert markdown_code("") == ""


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n@", "|x", "%0A=1"]
)
def test_spreadsheets_compute_nothing(text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerow([csv_cell(text)])
    assert next(csv.reader(io.StringIO(stream.getvalue(), newline="")))[0] == "'" + text
    assert csv_cell("1 = 1") == "1 = 1"
