# SPDX-License-Identifier: Apache-2.0
"""What models and users wrote, as text of a picture; and pictures that do not vary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib as mpl
from matplotlib.font_manager import FontProperties, findfont, get_font

from cintervene.utils.escaping import escaped, printable

__all__ = ["fixed_settings", "plot_text"]

LONGEST = 48


def plot_text(text: str) -> str:
    """Text that is drawn as it is: no formula, no glyph that the font lacks, no file.

    What the font lacks is written as its escape, and long texts are cut.
    """
    line = printable(text)
    if len(line) > LONGEST:
        line = line[: LONGEST - 2] + " …"
    known = _glyphs(findfont(FontProperties()))
    drawn = "".join(c if ord(c) in known else escaped(c) for c in line)
    # A legend leaves out what begins with an underscore.
    return (f" {drawn}" if drawn.startswith("_") else drawn).replace("$", r"\$")


@contextmanager
def fixed_settings(salt: str) -> Iterator[None]:
    """Draw without TeX, and with the same identifiers each time."""
    with mpl.rc_context({"text.usetex": False, "svg.hashsalt": salt}):
        yield


@cache
def _glyphs(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())
