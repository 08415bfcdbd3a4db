# SPDX-License-Identifier: Apache-2.0
"""What a model passes to each of its layers, noted so that they can be called alone.

Masks, position embeddings, per-layer inputs: what they are called and how they are made
differs from model to model. So they are taken from a forward pass of the model itself
in which layers do nothing but note what they were called with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.models.resident import resident
from cintervene.models.trace import Call, evaluating, first_tensor, probe_ids

__all__ = ["Arguments", "Record", "check_replay", "forked", "idle"]

# What a layer was called with besides the hidden states.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Of a layer's output relative to its size: rounding of sixteen-bit types.
TOLERANCE = 0.05


class Record:
    """What entered the first idle layer, and what each was called with.

    Attributes
    ----------
    hidden : Tensor or None
    arguments : dict of int to Arguments
    """

    def __init__(self) -> None:
        self.hidden: Tensor | None = None
        self.arguments: dict[int, Arguments] = {}

    def stand_in(self, layer: int, others: int | None) -> Callable[..., Any]:
        """A layer's forward that returns what it is given, and `others` Nones."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            kwargs = dict(kwargs)
            hidden = args[0] if args else kwargs.pop("hidden_states")
            if self.hidden is None:
                self.hidden = hidden
            self.arguments[layer] = (tuple(args[1:]), kwargs)
            return hidden if others is None else (hidden, *[None] * others)

        return forward


@contextmanager
def idle(
    layers: Sequence[nn.Module], others: Sequence[int | None], first: int = 0
) -> Iterator[Record]:
    """Let the layers from `first` on do nothing but note their arguments.

    Parameters
    ----------
    layers : sequence of nn.Module
    others : sequence of int or None
        See `Call`.
    first : int
    """
    record = Record()
    patched = list(enumerate(layers))[first:]
    before = [layer.__dict__.get("forward") for _, layer in patched]
    try:
        for index, layer in patched:
            layer.__dict__["forward"] = record.stand_in(index, others[index])
        yield record
    finally:
        for (_, layer), forward in zip(patched, before, strict=True):
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.__dict__["forward"] = forward


def forked(arguments: Mapping[int, Arguments]) -> dict[int, Arguments]:
    """Arguments to go on with independently: dicts that layers write to are copied.

    One dict that several layers share is one dict in the copy too.
    """
    copies: dict[int, Any] = {}

    def fork(value: Any) -> Any:
        if not isinstance(value, MutableMapping):
            return value
        if id(value) not in copies:
            copies[id(value)] = copy.copy(value)
        return copies[id(value)]

    return {
        layer: (tuple(map(fork, args)), {key: fork(v) for key, v in kwargs.items()})
        for layer, (args, kwargs) in arguments.items()
    }


def check_replay(model: nn.Module, decoder: nn.Module, chain: Sequence[Call]) -> bool:
    """Refuse layers that compute something else alone than within the model.

    Each layer of a traced chain is called anew, with what it read then and the
    arguments that were noted, and with another last token beside; and before the next
    one with something else.

    Returns
    -------
    bool
        Whether layers hand something on to later ones in a dict that they are given.

    Raises
    ------
    ModelError
        A layer does not return what it returned in the trace, or lets tokens see later
        ones.
    """
    layers, others = [call.module for call in chain], [call.others for call in chain]
    ids = probe_ids(model).expand(2, -1)
    with evaluating(decoder), _refused(chain[0]), idle(layers, others) as record:
        decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    for index, call in enumerate(chain):
        args, kwargs = record.arguments[index]
        other = torch.cat([call.x[:, :-1], call.x[:, :1]], dim=1)
        elsewhere, options = forked({index: (args, kwargs)})[index]
        with evaluating(call.module), _refused(call), resident(call.module):
            result = call.module(torch.cat([call.x, other]), *args, **kwargs)
            # Whoever reads what this layer leaves elsewhere shall find this.
            call.module(torch.cat([-call.x, other]), *elsewhere, **options)
        y = first_tensor(result)
        assert y is not None
        again, changed = y.double()
        if _apart(again, call.y[0].double()):
            raise ModelError(
                f"{call.name} computes something else when it is called alone: it "
                "reads what other layers leave elsewhere; this architecture is not "
                "supported"
            )
        if _apart(changed[:-1], again[:-1]):
            raise ModelError(
                f"{call.name} lets tokens see later ones; a decoder-only language "
                "model is expected"
            )
    values = [
        value
        for args, kwargs in record.arguments.values()
        for value in (*args, *kwargs.values())
    ]
    return any(isinstance(value, MutableMapping) for value in values)


def _apart(y: Tensor, expected: Tensor) -> bool:
    error = (y - expected.to(y.device)).norm(dim=-1)
    return not bool((error <= TOLERANCE * expected.norm(dim=-1)).all())


@contextmanager
def _refused(call: Call) -> Iterator[None]:
    """Whatever a layer raises that is called alone, as a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{call.name} cannot be called alone ({type(error).__name__}: {text}); "
            "this architecture is not supported"
        ) from error
