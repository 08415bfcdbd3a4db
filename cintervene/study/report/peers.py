# SPDX-License-Identifier: Apache-2.0
"""Points of other methods, to be drawn beside the interventions of a study."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cintervene.errors import ArgumentError

__all__ = ["Peer", "read_peers"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A method at one of its strengths, as measured on the same model.

    Attributes
    ----------
    name : str
        Of the method; its points make one line.
    setting : str
        The strength.
    kl : float
        On everyday answers, nats a token.
    forbidden_ratio : float or None
        Perplexity of the forbidden words, relative to the base's.
    refused : float or None
        Share of harmful requests that were refused.
    """

    name: str
    setting: str
    kl: float
    forbidden_ratio: float | None = None
    refused: float | None = None


def read_peers(path: str | os.PathLike[str]) -> list[Peer]:
    """Read points: a JSON list of objects with the attributes of `Peer`.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        It holds something else.
    """
    try:
        return [Peer(**point) for point in json.loads(Path(path).read_text("utf-8"))]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"--peers: {path} is no list of points ({error}); give what "
            "benchmarks/bench_peers.py wrote"
        ) from error
