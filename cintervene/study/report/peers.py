# SPDX-License-Identifier: Apache-2.0
"""Points of other methods, to be plotted beside the interventions of a study."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cintervene.errors import ArgumentError

__all__ = ["Peer", "read_peers"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another method at one of its strengths, as measured on the same model.

    Attributes
    ----------
    name : str
        Of the method; its points form one line.
    setting : str
        The strength.
    kl : float
        On everyday answers, nats per token.
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


def read_peers(peers: str | os.PathLike[str]) -> list[Peer]:
    """Read points: a JSON list of objects with the attributes of `Peer`.

    Parameters
    ----------
    peers : path

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        It contains something else.
    """
    try:
        return [Peer(**point) for point in json.loads(Path(peers).read_text("utf-8"))]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"peers: {peers} is not a list of points ({error}); give a file that "
            "benchmarks/bench_peers.py wrote"
        ) from error
