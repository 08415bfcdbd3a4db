# SPDX-License-Identifier: Apache-2.0
"""Results that a study keeps beside its journal, so that it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cintervene.utils.files import write_atomically
from cintervene.utils.json_ready import json_ready
from cintervene.utils.json_text import parse_json
from cintervene.utils.ranks import of_one, rank

__all__ = ["remembered"]

RESULT = "result"


def remembered(path: Path, about: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """Return what a file holds if it was made with the same, or make and keep it.

    Parameters
    ----------
    path : Path
        One that is damaged or missing is made anew.
    about : mapping
        What the result depends on, as JSON.
    make : callable
        Makes the result, as JSON.
    """
    known = json_ready(dict(about))
    stored = of_one(path.name, lambda: _stored(path))
    if {key: stored.get(key) for key in known} == known and RESULT in stored:
        return stored[RESULT]
    result = json_ready(make())
    text = json.dumps({**known, RESULT: result}, ensure_ascii=False)
    # Answers can contain lone surrogates, which UTF-8 cannot encode.
    if rank() == 0:
        write_atomically(path, text.encode("utf-8", "replace"))
    return result


def _stored(path: Path) -> Mapping[str, Any]:
    try:
        stored = parse_json(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
