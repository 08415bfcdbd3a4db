# SPDX-License-Identifier: Apache-2.0
"""One short forward pass, recorded: who was called, with what, in which order.

Everything that is said about a model's structure is read off such a trace, so that it
holds for what the model computes and not for what its modules happen to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.models.compiled import EAGER
from cintervene.models.offload import device_of, is_offloaded
from cintervene.models.surroundings import undisturbed
from cintervene.models.wrapped import named_modules

PROBE_TOKENS = 3
# A forward hook: called with module, arguments and output.
Hook = Callable[[nn.Module, Any, Tensor], Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module: its first tensor argument and its first tensor result.

    Both are on the device of the result, where the module computes. `others` is how
    much more than that tensor the module returned in a tuple or list, None where it
    returned the tensor itself.
    """

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    others: int | None


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and the model's own code and arithmetic; as it was after.

    Each part has its own mode again afterwards.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with EAGER, undisturbed():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; each part's own mode afterwards."""
    with evaluation_mode(module), torch.no_grad():
        yield


@contextmanager
def hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    """A forward hook on a module that is called inside, and only there.

    Raises
    ------
    ModelError
        The module was not called, or not in a way that hooks notice.
    """
    fired = False

    def noticing(module: nn.Module, args: Any, y: Tensor) -> Any:
        nonlocal fired
        fired = True
        return hook(module, args, y)

    handle = module.register_forward_hook(noticing)
    try:
        yield
    finally:
        handle.remove()
    if not fired:
        raise ModelError(
            f"a hook on a {type(module).__name__} did not run: the model left it out, "
            "or ran code in its place that calls no hooks (compiled, exported, fused "
            "kernels); load the model without that"
        )


def adds_to_output(run: Callable[[Hook], Tensor]) -> bool:
    """Tell whether a layer's output is its projection's output plus the rest.

    Doubling the projection's output on a few tokens must move the layer's output by
    just as much. It does not where a norm follows (Gemma), nor where the branch is
    scaled.

    Parameters
    ----------
    run : callable
        Runs the layer with a forward hook on the projection; returns its output.
    """
    outputs: list[Tensor] = []
    # Some layers go on to change what the projection returned, in place.
    plain = run(lambda _module, _args, y: outputs.append(y.clone()))
    doubled = run(lambda _module, _args, y: 2 * y)
    expected = outputs[0].double()
    moved = (doubled.double() - plain.double()).to(expected.device)
    error = (moved - expected).norm(dim=-1)
    return bool((error / expected.norm(dim=-1)).median() < 0.1)


def gain_of_output(run: Callable[[Hook], Tensor]) -> float:
    """How far a layer's output moves, relative to a change of its projection's output.

    1 where one is added to the other; another number where the branch is scaled, and
    where a norm follows, for changes of about the size of what is normed.

    Parameters
    ----------
    run : callable
        As that of `adds_to_output`.
    """
    changes: list[Tensor] = []

    def move(_module: nn.Module, _args: Any, y: Tensor) -> Tensor:
        # As large as the output, in another direction.
        changes.append(y.roll(1, dims=-1))
        return y + changes[0]

    plain = run(lambda _module, _args, _y: None)
    moved = (run(move) - plain).double().norm(dim=-1)
    sizes = changes[0].double().norm(dim=-1).reshape(moved.shape)
    return float((moved.to(sizes.device) / sizes).median())


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether tensors are equal, wherever they are."""
    return one.shape == other.shape and torch.equal(one, other.to(one.device))


def first_tensor(value: object) -> Tensor | None:
    """Return `value` itself or the first tensor of a tuple, list or dict."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return next((item for item in value if isinstance(item, Tensor)), None)
    return None


def trace(model: nn.Module) -> list[Call]:
    """Run `model` on a few tokens and list the calls of its modules as they finished.

    Raises
    ------
    ModelError
        A parameter is on the meta device, or the model cannot be run on token ids.
    """
    _refuse_unloaded(model)
    calls: list[Call] = []
    handles = [
        module.register_forward_hook(_recorder(calls, name), with_kwargs=True)
        for name, module in named_modules(model)
    ]
    try:
        with evaluating(model):
            model(input_ids=probe_ids(model), use_cache=False)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} could not be run on {PROBE_TOKENS} tokens "
            f"({type(error).__name__}: {error}); a decoder-only language model whose "
            "forward takes input_ids is expected"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _refuse_unloaded(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if is_offloaded(module):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                raise ModelError(
                    f"parameter {path}.{name} is on the meta device and no hook of "
                    "accelerate on its module brings it in; load the whole model"
                )


def _recorder(calls: list[Call], name: str) -> Callable[..., None]:
    def record(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        x = first_tensor(args)
        x = first_tensor(kwargs) if x is None else x
        y = first_tensor(result)
        if x is not None and y is not None:
            several = isinstance(result, (tuple, list))
            others = len(result) - 1 if several else None
            here = x.to(y.device, copy=True)
            calls.append(Call(name, module, here, y.clone(), others))

    return record


def probe_ids(model: nn.Module, count: int = PROBE_TOKENS) -> Tensor:
    """A sequence (1, count) of different tokens."""
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    weight = getattr(embedding, "weight", None)
    if not isinstance(weight, Tensor):
        raise TypeError("the model has no input embedding")
    # Token 0 is often the padding token, whose embedding is a row of zeros.
    place = device_of(embedding)
    ids = torch.arange(1, count + 1, device=place) % weight.shape[0]
    return ids.unsqueeze(0)
