# SPDX-License-Identifier: Apache-2.0
"""Streams that several calls begin with: the layers below are run once for all."""

from __future__ import annotations

from collections.abc import Callable

from cintervene.activations.layer_stream import LayerStream
from cintervene.utils.kept import kept

__all__ = ["kept_stream"]


def kept_stream(
    name: str, depends_on: object, first: int, enter: Callable[[int], LayerStream]
) -> LayerStream:
    """Return a stream at a layer, led on from the one that was kept if that is below.

    Parameters
    ----------
    name, depends_on
        See `kept`; the layer is not among what it depends on.
    first : int
        From 0 on.
    enter : callable
        Makes the stream at a layer.
    """
    place = kept(name, depends_on, lambda: [enter(first)])
    if place[0].layer > first:
        place[0] = enter(first)
    elif place[0].layer < first:
        ahead = place[0].fork()
        ahead.advance(first - 1)
        place[0] = ahead
    return place[0].fork()
