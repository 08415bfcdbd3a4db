# SPDX-License-Identifier: Apache-2.0
"""Streams that several calls begin with: the layers below are run once for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cintervene.activations.layer_stream import LayerStream
from cintervene.utils.kept import kept

__all__ = ["kept_streams"]


def kept_streams(
    name: str,
    depends_on: object,
    first: int,
    enter: Callable[[int], Sequence[LayerStream]],
) -> list[LayerStream]:
    """Return streams at a layer, led on from those that were kept if these are below.

    Parameters
    ----------
    name, depends_on
        See `kept`; the layer is not among what they depend on.
    first : int
        From 0 on.
    enter : callable
        Makes the streams at a layer.
    """
    place = kept(name, depends_on, lambda: [enter(first)])
    if place[0][0].layer > first:
        place[0] = enter(first)
    elif place[0][0].layer < first:
        place[0] = [_led_on(stream, first) for stream in place[0]]
    return [stream.fork() for stream in place[0]]


def _led_on(stream: LayerStream, layer: int) -> LayerStream:
    ahead = stream.fork()
    ahead.advance(layer - 1)
    return ahead
