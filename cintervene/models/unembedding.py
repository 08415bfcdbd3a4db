# SPDX-License-Identifier: Apache-2.0
"""How a token is read off the residual stream: final norm, unembedding, soft cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.models.blocks import is_norm_of
from cintervene.models.decoder import Decoder, find_decoder
from cintervene.models.offload import device_of, parameter_identity, parameter_value
from cintervene.models.surroundings import undisturbed
from cintervene.models.targets import Target
from cintervene.models.weights import FLOAT_DTYPES

# Rows of the head that are widened at a time.
TOKENS = 4096
# Bytes of a head in float32 that is held as a whole: widening it for each few hundred
# rows of logits takes a tenth of the time of the product.
HELD = 1 << 28
# What configurations call the soft cap of the logits.
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True, eq=False)
class Scale:
    """What a norm multiplies with: y = scale * x / spread(x) (+ bias).

    Attributes
    ----------
    scale : Tensor
        (width,) float32; Gemma's norms store this number minus one.
    centred : bool
        Whether the mean of x is taken out first (LayerNorm).
    """

    scale: Tensor
    centred: bool

    def pull_back(self, directions: Tensor) -> Tensor:
        """Turn directions of the norm's output into those of its input (n, width)."""
        rows = directions * self.scale.to(directions.device)
        return rows - rows.mean(dim=-1, keepdim=True) if self.centred else rows


@dataclass(frozen=True, eq=False)
class Unembedding:
    """The last step of a language model.

    Attributes
    ----------
    weight : Tensor
        (vocabulary, hidden) rows of the head, in the model's dtype, on the device where
        the head computes. Not copied, unless it is offloaded elsewhere.
    head : nn.Module
        The module that holds them.
    norm : nn.Module
        The final norm.
    norm_weight : Tensor
        (hidden,) float32, what the final norm multiplies with.
    centred : bool
        Whether the final norm takes the mean out first.
    bias : Tensor or None
        (vocabulary,) what the head adds.
    scale : float
        What the model multiplies the head's output with (Cohere, Granite).
    softcap : float or None
        Logits are softcap * tanh(logits / softcap), after that.
    tied : bool
        Whether `weight` is the input embedding too.
    """

    weight: Tensor
    head: nn.Module
    norm: nn.Module
    norm_weight: Tensor
    centred: bool
    bias: Tensor | None
    scale: float
    softcap: float | None
    tied: bool

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, vocabulary) of last-layer hidden states (n, hidden)."""
        with undisturbed(), torch.no_grad():
            return self.capped(self.head(self.norm(hidden)))

    def from_products(self, products: Tensor) -> Tensor:
        """Return logits of normed hidden states times the rows of `weight`."""
        if self.bias is not None:
            products = products + self.bias.detach().to(products)
        return self.capped(products)

    def capped(self, logits: Tensor) -> Tensor:
        """Return what the model makes of the head's output."""
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap

    def directions(
        self, token_ids: Sequence[int], target: Target | None = None
    ) -> Tensor:
        """Return the directions of the residual stream that raise the tokens' logits.

        The logit of token w is x / spread(x) dotted with row w times the norm's weight
        and the scale; a centred norm also takes out the mean.

        Parameters
        ----------
        token_ids : sequence of int
        target : Target, optional
            Give the directions of this projection's output instead, which differ where
            a norm stands between it and the residual stream (Gemma), and in size where
            it is multiplied on its way there (Granite).

        Returns
        -------
        Tensor
            (len(token_ids), hidden) float32, not normalised.
        """
        index = torch.tensor(
            list(token_ids), dtype=torch.long, device=self.weight.device
        )
        return self.pull_back(self.weight.detach()[index].float(), target)

    def mean_direction(self, shares: Tensor, target: Target | None = None) -> Tensor:
        """Return the sum of all tokens' directions (hidden,), each times its share.

        Parameters
        ----------
        shares : Tensor, shape (vocabulary,)
            In float32.
        target : Target, optional
            See `directions`.
        """
        weight = self.weight.detach()
        total = torch.zeros(weight.shape[1], device=weight.device)
        for start in range(0, len(weight), TOKENS):
            part = slice(start, start + TOKENS)
            total += shares[part].to(total) @ weight[part].float()
        return self.pull_back(total, target)

    def pull_back(self, rows: Tensor, target: Target | None = None) -> Tensor:
        """Turn rows of the head, or sums of some, into `directions`.

        Parameters
        ----------
        rows : Tensor, shape (..., hidden)
            In float32.
        target : Target, optional
        """
        rows = Scale(self.norm_weight, self.centred).pull_back(rows * self.scale)
        if target is None:
            return rows
        if target.after is None:
            return rows * target.gain
        return norm_scale(target.after, target.d_out).pull_back(rows)


class WideHead:
    """The rows of a head in float32: of a large one never all of them at once.

    Parameters
    ----------
    weight : Tensor
        (vocabulary, hidden)
    """

    def __init__(self, weight: Tensor) -> None:
        weight = weight.detach()
        self._whole = weight.dtype == torch.float32 or 4 * weight.numel() <= HELD
        self._weight = weight.float() if self._whole else weight

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._weight.device

    @property
    def shape(self) -> torch.Size:
        """(vocabulary, hidden)."""
        return self._weight.shape

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Some tokens after the other, and their rows."""
        for start in range(0, len(self._weight), TOKENS):
            part = slice(start, start + TOKENS)
            yield part, self._weight[part].float()

    def products(self, normed: Tensor) -> Tensor:
        """Products (n, vocabulary) of float32 states (n, hidden) with all rows."""
        if self._whole:
            return normed @ self._weight.T
        products = normed.new_empty(len(normed), len(self._weight))
        for part, rows in self.blocks():
            products[:, part] = normed @ rows.T
        return products

    def mixed(self, shares: Tensor) -> Tensor:
        """Sums (n, hidden) of the rows, each times its share (n, vocabulary)."""
        if self._whole:
            return shares @ self._weight
        mixed = shares.new_zeros(len(shares), self.shape[1])
        for part, rows in self.blocks():
            mixed += shares[:, part] @ rows
        return mixed


def find_unembedding(model: nn.Module) -> Unembedding:
    """Find the final norm and the unembedding of `model`.

    Raises
    ------
    ModelError
        There is no head with a plain weight or no single final norm, or the model does
        more to its logits than these, a scale and a soft cap.
    """
    return unembedding_of(find_decoder(model))


def unembedding_of(decoder: Decoder) -> Unembedding:
    """`find_unembedding` in a model whose decoder is known."""
    model = decoder.model
    head = getattr(model, "get_output_embeddings", lambda: None)()
    weight = getattr(head, "weight", None)
    if (
        not isinstance(weight, Tensor)
        or weight.dtype not in FLOAT_DTYPES
        or weight.ndim != 2
        or weight.shape[1] != decoder.hidden_size
    ):
        raise ModelError(
            f"{type(model).__name__} has no plain unembedding of width "
            f"{decoder.hidden_size}; load it with its language-model head and in "
            "its original precision"
        )
    norm = _final_norm(decoder)
    scale = norm_scale(norm, decoder.hidden_size)
    assert isinstance(head, nn.Module)
    place = device_of(head)
    bias = getattr(head, "bias", None)
    if bias is not None:
        bias = parameter_value(head, "bias").to(place)
    plain = Unembedding(
        parameter_value(head).to(place), head, norm, scale.scale, scale.centred, bias,
        1.0, None, is_tied(model),
    )  # fmt: skip
    return _as_returned(plain, decoder)


def is_tied(model: nn.Module) -> bool:
    """Tell whether the unembedding of `model` is its input embedding too."""
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    weights = [getattr(module, "weight", None) for module in (head, embedding)]
    if not all(isinstance(weight, Tensor) for weight in weights):
        return False
    if parameter_identity(head) == parameter_identity(embedding):
        return True
    # Two files of a disk do not say that they hold one matrix.
    config: Any = model.config
    named = getattr(config.get_text_config(), "tie_word_embeddings", False)
    return bool(head.weight.is_meta and named)


def _as_returned(plain: Unembedding, decoder: Decoder) -> Unembedding:
    """The unembedding with scale and soft cap as the model's own logits show them."""
    config = decoder.model.config.get_text_config()  # type: ignore[union-attr, operator]
    caps = (getattr(config, name, None) for name in SOFT_CAPS)
    softcap = next((cap for cap in caps if cap), None)
    last = next(call for call in decoder.calls if call.module is decoder.layers[-1])
    logits = plain.logits(last.y).double()
    returned = decoder.calls[-1].y.to(logits.device)
    tolerance = max(1e-3, 4 * torch.finfo(returned.dtype).eps)
    returned = returned.double()
    scale = 1.0
    if softcap is None:
        scale = float((logits * returned).sum() / logits.square().sum())
    scale = 1.0 if abs(scale - 1.0) <= tolerance else scale
    found = replace(plain, scale=scale, softcap=softcap)
    error = (found.logits(last.y).double() - returned).norm()
    if not (scale > 0 and error <= tolerance * returned.norm()):
        raise ModelError(
            f"{type(decoder.model).__name__} does more to its logits after the head "
            "than to scale and to cap them; this architecture is not supported"
        )
    return found


def norm_scale(norm: nn.Module, width: int) -> Scale:
    """Measure what a norm multiplies with, by comparing it with the known formulas.

    Raises
    ------
    ModelError
        The module is neither an RMSNorm (plain, with 1 + weight, or without weight) nor
        a LayerNorm.
    """
    weight = getattr(norm, "weight", None)
    place = device_of(norm)
    shift, factor = torch.zeros(width, device=place), torch.ones(width, device=place)
    if isinstance(getattr(norm, "bias", None), Tensor):
        shift = parameter_value(norm, "bias").detach().to(place).float()
    dtype = torch.float32
    if isinstance(weight, Tensor):
        factor, dtype = parameter_value(norm).detach().to(place).float(), weight.dtype
    # Large, uneven values: epsilon does not matter and the mean is not zero.
    x = 100.0 * torch.sin(torch.arange(1, width + 1, device=place)) + 25.0
    with undisturbed(), torch.no_grad():
        y = norm(x.to(dtype).view(1, 1, -1)).view(-1).float()
        x = x.to(dtype).float()
        for centred in (False, True):
            z = x - x.mean() if centred else x
            z = z / z.square().mean().sqrt()
            for scale in (factor, 1.0 + factor):
                if (y - shift - z * scale).norm() <= 0.02 * y.norm():
                    return Scale(scale, centred)
    raise ModelError(f"{type(norm).__name__} is neither an RMSNorm nor a LayerNorm")


def _final_norm(decoder: Decoder) -> nn.Module:
    """Return the one norm that reads the last layer's output."""
    calls = decoder.calls
    last = next(i for i, call in enumerate(calls) if call.module is decoder.layers[-1])
    norms = [
        call.module for call in calls[last + 1 :] if is_norm_of(call, calls[last].y)
    ]
    if len(norms) != 1:
        raise ModelError(
            f"expected one norm after layer {len(decoder.layers) - 1}, "
            f"found {len(norms)}"
        )
    return norms[0]
