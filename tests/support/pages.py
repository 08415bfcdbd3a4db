# SPDX-License-Identifier: Apache-2.0
"""Pages taken apart, and a text that no page may take for its own signs."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

HOSTILE = "</pre><script>alert(1)</script>&lt;\x00\x1b[31m\u202e\ud800 <img src=//x>"
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Fails on tags that do not match, and collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        if "id" in given:
            self.ids[str(given["id"])] += 1
        for name in ("href", "src", "xlink:href"):
            if name in given:
                self.references.append(str(given[name]))
        assert not [name for name in given if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader
