# SPDX-License-Identifier: Apache-2.0
"""Model cards taken apart."""

from __future__ import annotations

from typing import Any


def split(card: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The front matter, and the sections by their headings."""
    import yaml

    _, front, text = card.split("---\n", 2)
    sections = text.split("\n## ")
    return yaml.safe_load(front), {s.split("\n")[0]: s for s in sections[1:]}
