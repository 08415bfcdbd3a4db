# SPDX-License-Identifier: Apache-2.0
"""How a model's past can be kept: keys and values, recurrent states, or not at all.

Keys and values of attention can be taken apart, repeated and padded. A recurrent state
can be repeated, but whatever is padded goes into it. Some models keep a state where
nothing but they can reach it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from cintervene.models.trace import evaluating, probe_ids

__all__ = [
    "cache_of_length",
    "forward_parameters",
    "has_plain_cache",
    "holds",
    "nearly_same",
    "new_cache",
    "repeated",
    "repeated_at",
    "resumes",
]

# What was tried out of models: see `holds`.
_found: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


def forward_parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """What a module's `forward` takes, by name."""
    return inspect.signature(module.forward).parameters


def new_cache(model: nn.Module) -> DynamicCache:
    """An empty cache of the kind that the model's layers fill."""
    config: Any = model.config
    return DynamicCache(config=config.get_text_config())


def cache_of_length(model: nn.Module, length: int) -> DynamicCache:
    """A cache of a model with a plain one, as long as if it had read so much.

    The numbers in it are none: it tells where what follows stands.
    """
    cache = new_cache(model)
    for layer in range(len(cache.layers)):
        nothing = torch.zeros(1, 1, length, 1)
        cache.update(nothing, nothing, layer)
    return cache


def repeated(cache: DynamicCache, count: int) -> DynamicCache:
    """A copy of a cache of one sequence for a batch, which may be written to."""
    copies = copy.deepcopy(cache)
    # Unlike `batch_repeat_interleave`, recurrent states have this.
    copies.reorder_cache(torch.zeros(count, dtype=torch.int64))  # type: ignore[arg-type]
    return copies


def repeated_at(cache: DynamicCache, layer: int, count: int) -> DynamicCache:
    """The same of which one layer alone may be written to; the others are shared."""
    copies = copy.copy(cache)
    copies.layers = list(cache.layers)
    copies.layers[layer] = copy.deepcopy(cache.layers[layer])
    copies.layers[layer].reorder_cache(torch.zeros(count, dtype=torch.int64))  # type: ignore[arg-type]
    return copies


def has_plain_cache(model: nn.Module) -> bool:
    """Whether all that a model remembers are keys and values of attention."""
    takes = forward_parameters(model)
    if "past_key_values" not in takes or getattr(model, "_is_stateful", False):
        return False
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return all(type(layer) in plain for layer in new_cache(model).layers)


def holds(model: nn.Module, what: str, trial: Callable[[], bool]) -> bool:
    """Whether something is so of a model: tried out once, and not if that fails.

    Parameters
    ----------
    model : nn.Module
    what : str
        Under which the answer is remembered.
    trial : callable
    """
    found = _found.setdefault(model, {})
    if what not in found:
        try:
            found[what] = trial()
        except Exception:
            # Whatever it is that this model does not do, it does not do this.
            found[what] = False
    return found[what]


def resumes(model: nn.Module) -> bool:
    """Whether a model goes on from a repeated cache as if it had read all at once.

    Of a plain cache `LowerLayers` tries it layer by layer, which takes one reading of
    an offloaded model in place of four.
    """
    takes = "past_key_values" in forward_parameters(model)
    return takes and holds(model, "goes on as a whole", partial(_resumes, model))


def _resumes(model: nn.Module) -> bool:
    ids = probe_ids(model, 6).view(2, 3)
    begun = ids[:1].expand(2, -1)
    with evaluating(model):
        cache = new_cache(model)
        model(input_ids=ids[:1], past_key_values=cache, use_cache=True)
        past = repeated(cache, 2)
        rest = torch.cat([ids[1:, :2], ids[1:, 1:]])
        tokens = torch.cat([begun, rest], dim=1)
        options = {"past_key_values": past, "use_cache": True}
        mask = torch.ones_like(tokens)
        two = model(input_ids=rest, attention_mask=mask, **options).logits
        more = torch.cat([mask, mask[:, :1]], dim=1)
        last = model(input_ids=rest[:, :1], attention_mask=more, **options).logits
        again = torch.cat([tokens, rest[:, :1]], dim=1)
        whole = model(input_ids=again, use_cache=False).logits
    return nearly_same(two, whole[:, 3:-1]) and nearly_same(last[:, -1], whole[:, -1])


def nearly_same(x: Tensor, expected: Tensor) -> bool:
    """Whether values of one pass are those of another but for rounding."""
    tolerance = max(1e-3, 8 * torch.finfo(expected.dtype).eps)
    return bool((x - expected).norm() <= tolerance * expected.norm())
