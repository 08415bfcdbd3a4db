# SPDX-License-Identifier: Apache-2.0
"""Figures as elements of a page."""

from __future__ import annotations

import io
import re

from matplotlib.figure import Figure

from cintervene.evaluate.report.plot_text import fixed_settings

__all__ = ["svg"]


def svg(figure: Figure, name: str) -> str:
    """Write a figure as an element of a page, as wide as the page allows.

    Identifiers get the prefix `name`, so that those of two pictures do not collide.
    """
    buffer = io.StringIO()
    with fixed_settings(name):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    # The size of the outermost element is left to the page.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{name}">{rest.rstrip()}'
