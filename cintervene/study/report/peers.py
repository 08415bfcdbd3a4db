# SPDX-License-Identifier: Apache-2.0
"""Points of other methods, to be plotted beside the interventions of a study."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from cintervene.errors import ArgumentError
from cintervene.utils.json_text import parse_json

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
        points = parse_json(Path(peers).read_text("utf-8"))
        return [_checked(Peer(**point)) for point in points]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"peers: {peers} is not a list of points ({error}); give a file that "
            "benchmarks/bench_peers.py wrote"
        ) from error


def _checked(peer: Peer) -> Peer:
    numbers = [x for x in (peer.forbidden_ratio, peer.refused) if x is not None]
    texts = (peer.name, peer.setting)
    if not all(isinstance(one, str) for one in texts):
        raise TypeError(f"name and setting: got {texts}, expected texts")
    if not all(
        type(x) in (int, float) and math.isfinite(x) for x in (peer.kl, *numbers)
    ):
        raise TypeError(f"{peer.name}: got what is no finite number")
    return peer
