# SPDX-License-Identifier: Apache-2.0
"""Ablating the refusal direction from the weights, which needs no prompt at all.

Source: A. Arditi et al., "Refusal in language models is mediated by a single
direction", arXiv 2406.11717: the difference of the mean hidden states of harmful and
harmless prompts, removed from everything that writes to the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cintervene.activations.layer_stream import LayerStream
from cintervene.baselines.answering import Answerer, Generation
from cintervene.errors import ArgumentError, ModelError
from cintervene.models.decoder import find_decoder
from cintervene.models.quantised import check_writable
from cintervene.models.weights import overwriting
from cintervene.prompts.chat import render
from cintervene.prompts.template import chat_tokenizer

__all__ = ["DirectionAblated", "direction_removed", "refusal_direction"]


def refusal_direction(
    model: nn.Module,
    tokenizer: Any,
    harmful: Sequence[str],
    harmless: Sequence[str],
    layer: int | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Direction in which harmful prompts differ from harmless ones.

    Parameters
    ----------
    model : nn.Module
    tokenizer : Any
    harmful, harmless : sequence of str
        Prompts; a few dozen of each.
    layer : int, optional
        The layer whose input is compared, at the last token of the prompt; by default
        the one at 0.6 of the depth, where the paper finds most of its directions.
    template_options : mapping, optional
        What to give the chat template; by default its modes take turns.

    Returns
    -------
    Tensor, shape (hidden,), float32
        Of length 1.

    Raises
    ------
    ArgumentError
        There are no prompts of a kind, there is no such layer, or the means are equal.
    """
    decoder = find_decoder(model)
    depth = decoder.n_layers
    at = int(0.6 * depth) if layer is None else layer
    if not harmful or not harmless or not 0 <= at < depth:
        raise ArgumentError(
            f"harmful, harmless, layer: got {len(harmful)} and {len(harmless)} prompts "
            f"and layer {at}, expected prompts of both kinds and one of {depth} layers"
        )
    chat = chat_tokenizer(tokenizer, template_options)
    prompts = [render(chat, one) for one in (*harmful, *harmless)]
    last = [[-1]] * len(prompts)
    stream = LayerStream(decoder, prompts, at, wanted=last)
    entering = stream.hidden().float()
    bad, good = entering[: len(harmful)], entering[len(harmful) :]
    difference = bad.mean(dim=0) - good.mean(dim=0)
    length = float(difference.norm())
    if length == 0.0:
        raise ArgumentError(
            "harmful, harmless: got prompts with equal mean hidden states, expected a "
            "difference; give other prompts"
        )
    return difference / length


@contextmanager
def direction_removed(model: nn.Module, direction: Tensor) -> Iterator[None]:
    """Inside the block nothing writes `direction` to the residual stream.

    Token embeddings and the last projections of attention and MLP are made orthogonal
    to it, biases too. Where a norm follows the projection (Gemma), its scale lets some
    of the direction through again.

    Raises
    ------
    ModelError
        A layer has parts other than attention and MLP that write, or weights are
        quantised or offloaded.
    """
    check_writable(model)
    unit = direction / direction.norm()
    with overwriting() as overwrite:
        for tensor, axis in _writers(model):
            wide = tensor.detach().float()
            overwrite(tensor, _without(wide, unit.to(wide.device), axis))
        yield


def _without(tensor: Tensor, unit: Tensor, axis: int) -> Tensor:
    along = torch.tensordot(tensor, unit, dims=([axis], [0]))
    if tensor.ndim == 1:
        return tensor.sub(along * unit)
    pair = (unit, along) if axis == 0 else (along, unit)
    return tensor.sub(torch.outer(*pair))


def _writers(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Tensors that write to the residual stream and their axis of its width."""
    decoder = find_decoder(model)
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    yield embedding.weight, 1
    for number in range(decoder.n_layers):
        prefix = f"{decoder.layers_name}.{number}."
        last: dict[str, nn.Module] = {}
        for call in decoder.calls:
            part, _, inner = call.name.removeprefix(prefix).partition(".")
            if call.name.startswith(prefix) and inner and _is_projection(call.module):
                last[part] = call.module
        if len(last) != 2:
            raise ModelError(
                f"{prefix[:-1]} has {len(last)} parts with projections "
                f"({', '.join(last)}), expected attention and MLP"
            )
        for module in last.values():
            weight: Any = module.weight
            yield weight, 1 if isinstance(module, Conv1D) else 0
            if isinstance(getattr(module, "bias", None), Tensor):
                bias: Any = module.bias
                yield bias, 0


def _is_projection(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


@dataclass(frozen=True, eq=False)
class DirectionAblated:
    """Another answerer, with a direction ablated from its model's weights."""

    inner: Answerer
    model: nn.Module
    direction: Tensor

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`. The weights are restored."""
        with direction_removed(self.model, self.direction):
            return self.inner.answer(prompts, generation, seed)
