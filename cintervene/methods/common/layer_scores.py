# SPDX-License-Identifier: Apache-2.0
"""Scores of a model's layers: measured once, kept by what they were measured on.

Comparing layers takes as long as all requests take to pass them, and comes out the same
as long as model, requests and this package do. So scores are kept in a file that is
named by a hash of all three, in the directory of `cache_directory`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cintervene.errors import ModelError
from cintervene.models.embedded import cache_directory
from cintervene.models.quantised import check_writable
from cintervene.models.weights import add_to_hash
from cintervene.utils.files import write_atomically
from cintervene.utils.json_text import parse_json
from cintervene.utils.ranks import of_one
from cintervene.version import __version__

__all__ = ["kept_scores"]

logger = logging.getLogger(__name__)

Scores = list[float]


def kept_scores(
    model: nn.Module,
    names: Sequence[str],
    measured_on: Mapping[str, Any],
    measure: Callable[[], Scores],
) -> Scores:
    """Scores as they were measured on this very model before, or now.

    Parameters
    ----------
    model : nn.Module
        Where its weights do not determine all that it does (quantised or offloaded
        ones, hooks, adapters), scores are measured each time.
    names : sequence of str
        Of what has a score.
    measured_on : dict
        What scores depend on besides, as JSON has it.
    measure : callable
    """
    if not _determined_by_weights(model):
        return measure()
    place = cache_directory() / "layers" / f"{_hash(model, names, measured_on)}.json"
    # Ranks that share work may be on machines of which each keeps its own.
    scores = of_one("scores of layers", lambda: _read(place, names))
    if scores is None:
        scores = measure()
        _write(place, dict(zip(names, scores, strict=True)))
    return scores


def _determined_by_weights(model: nn.Module) -> bool:
    try:
        check_writable(model)
    except ModelError:
        return False
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return not hooked and getattr(model, "peft_config", None) is None


def _hash(model: Any, names: Sequence[str], measured_on: Mapping[str, Any]) -> str:
    about = [__version__, model.config.to_json_string(), list(names), measured_on]
    state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    add_to_hash(state, model)
    return state.hexdigest()


def _read(place: Path, names: Sequence[str]) -> Scores | None:
    """Scores of a file; None where there is none, or not in one piece."""
    try:
        content = parse_json(place.read_text("utf-8"))
        scores = [float(content[name]) for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return scores if all(map(math.isfinite, scores)) else None


def _write(place: Path, scores: Mapping[str, float]) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(scores, indent=1).encode())
    except OSError as error:
        logger.info("scores of layers cannot be kept in %s: %s", place.parent, error)
