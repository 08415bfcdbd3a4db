# SPDX-License-Identifier: Apache-2.0
"""A model's structure without its weights: its code, run on tensors without numbers.

What is found by numbers in a model that is there (`find_gated_mlp`) is told here by
which tensor goes from which module to which, from a configuration alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from cintervene.models.blocks import holds_matrix, parent
from cintervene.models.trace import PROBE_TOKENS, Call, first_tensor

__all__ = ["has_plain_neurons"]


def has_plain_neurons(config: Any, layer: int) -> bool | None:
    """Whether a layer's MLP is gated and its output added as it is, without a norm.

    Parameters
    ----------
    config
        Of a causal language model of transformers.
    layer : int

    Returns
    -------
    bool or None
        None where the code cannot be run so.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            made = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, attn_implementation="eager", trust_remote_code=False
            )
            model: nn.Module = made.eval()
            calls = _calls_in(model, layer)
    except Exception:
        # Whatever it is that this model needs numbers for, there are none.
        return None
    last = _last_projection(calls, config.get_text_config().hidden_size)
    if last is None:
        return False
    behind = calls[calls.index(last) + 1 :]
    return _is_gated(calls, last) and not any(_norms(one, last.y) for one in behind)


def _calls_in(model: nn.Module, layer: int) -> list[Call]:
    """The calls of a decoder layer's parts, as they finished."""
    text: Any = model.config
    depth = text.get_text_config().num_hidden_layers
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    ((name, stack),) = stacks
    calls: list[Call] = []
    for path, part in stack[layer].named_modules(prefix=f"{name}.{layer}"):
        part.register_forward_hook(_recorder(calls, path), with_kwargs=True)
    ids = torch.ones((1, PROBE_TOKENS), dtype=torch.int64)
    # With a mask nobody looks for sequences that are packed into one.
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return calls


def _recorder(calls: list[Call], name: str) -> Any:
    def record(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        x = first_tensor(args)
        x = first_tensor(kwargs) if x is None else x
        y = first_tensor(result)
        if x is not None and y is not None:
            calls.append(Call(name, module, x, y, None))

    return record


def _last_projection(calls: list[Call], hidden: int) -> Call | None:
    """The last matrix that writes to the residual stream."""
    matrices = [one for one in calls if holds_matrix(one.module)]
    return next((one for one in matrices[::-1] if one.y.shape[-1] == hidden), None)


def _is_gated(calls: list[Call], last: Call) -> bool:
    """Whether its inputs are made of two numbers each, and these of what is read."""
    path, width = parent(last), last.x.shape[-1]
    block = next((one for one in calls if one.name == path), None)
    if block is None or block.y is not last.y:
        return False
    made = [
        one.y.shape[-1]
        for one in calls
        if parent(one) == path and holds_matrix(one.module) and one.x is block.x
    ]
    product = not any(one.y is last.x for one in calls)
    return product and made in ([width, width], [2 * width])


def _norms(call: Call, x: Tensor) -> bool:
    """Whether a call is that of a norm of this very tensor."""
    weight = getattr(call.module, "weight", None)
    fits = isinstance(weight, Tensor) and weight.shape == x.shape[-1:]
    holds = any(True for _ in call.module.parameters())
    return call.x is x and (fits or not (holds or call.y is x))
