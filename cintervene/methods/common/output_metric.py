# SPDX-License-Identifier: Apache-2.0
r"""The metric of a layer's outputs: what a shift does to benign next tokens.

To second order, shifting the residual stream by x changes a next-token distribution p
by ``KL = x' F x / 2`` with the Fisher information ``F = J' (diag p - p p') J``, J the
derivative of the logits. Measuring a change of a layer with the mean F over benign
tokens on its left and `Preserve` on its right makes its squared norm (twice) the
divergence that it costs on benign text, so that the smallest change is the least
harmful one. Two directions that raise the same logit differ hugely in this norm: most
of the length of an unembedding row raises many other logits too. (The same product of
two second moments is the curvature of K-FAC, Martens and Grosse 2015.)

The whitened problem is an ordinary one: outputs, concepts and directions are expressed
in coordinates in which F is the identity, and the solution is mapped back: see
docs/methods/pcr.md (14).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.scoring import logits_in_blocks
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding, WideHead, norm_scale
from cintervene.models.weights import as_floats
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = [
    "OutputMetric",
    "TokenStatistics",
    "logit_scale",
    "token_directions",
    "token_statistics",
]

# Of a Fisher information relative to the second moments that it is the difference of.
ROUNDING = 1e-6


class OutputMetric:
    """A metric F of a layer's outputs, positive definite, and whitening coordinates.

    Parameters
    ----------
    fisher : ndarray, shape (d_out, d_out)
        Symmetric positive semidefinite.
    ridge : float
        Added to the diagonal, relative to its mean. It bounds how far a direction that
        moves no benign token can be used.
    """

    def __init__(self, fisher: Floats, ridge: float) -> None:
        d_out = len(fisher)
        level = np.trace(fisher) / d_out
        values, vectors = np.linalg.eigh(fisher)
        # Dividing by the level keeps costs comparable with those of the plain norm.
        scaled = np.maximum(values, 0.0) / level + ridge
        self._root = (vectors * np.sqrt(scaled)) @ vectors.T
        self._inverse_root = (vectors / np.sqrt(scaled)) @ vectors.T

    @classmethod
    def plain(cls, d_out: int) -> OutputMetric:
        """The Euclidean metric."""
        return cls(np.eye(d_out), ridge=0.0)

    def points(self, outputs: Floats) -> Floats:
        """Coordinates of outputs or concepts (n, d_out)."""
        coordinates: Floats = outputs @ self._root
        return coordinates

    def directions(self, directions: Floats, part: slice = slice(None)) -> Floats:
        """Coordinates of directions (n, d_out): products with points stay the same.

        Some of them alone, if so asked.
        """
        coordinates: Floats = directions @ self._inverse_root[:, part]
        return coordinates

    def restored(self, shifts: Floats) -> Floats:
        """Shifts of the outputs (n, d_out) whose coordinates are given."""
        outputs: Floats = shifts @ self._inverse_root
        return outputs

    def restore(self, update: LowRankUpdate) -> LowRankUpdate:
        """The change of the layer that is `update` in the coordinates."""
        return LowRankUpdate(self._inverse_root @ update.left, update.right)


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """Benign next-token distributions in short.

    Attributes
    ----------
    fisher : ndarray, shape (hidden, hidden)
        Mean Fisher information in the residual stream before the final norm.
    mean_token : ndarray, shape (vocabulary,)
        Mean probability of each token.
    """

    fisher: Floats
    mean_token: Tensor

    def fisher_at(self, target: Target) -> Floats:
        """The Fisher information of a target's output, up to a factor."""
        if target.after is None:
            return self.fisher
        scale = norm_scale(target.after, target.d_out)
        half = scale.pull_back(torch.from_numpy(self.fisher).float())
        return as_floats(scale.pull_back(half.T))

    def metric_at(self, target: Target, ridge: float | None) -> OutputMetric:
        """The metric of a target's output; the plain norm without a ridge."""
        if ridge is None:
            return OutputMetric.plain(target.d_out)
        return OutputMetric(self.fisher_at(target), ridge)

    def mean_direction(self, unembedding: Unembedding, target: Target) -> Tensor:
        """Direction (d_out,) of what the model says on benign text."""
        return unembedding.mean_direction(self.mean_token, target)


def token_statistics(unembedding: Unembedding, hidden: Tensor) -> TokenStatistics:
    r"""Mean Fisher information and token probabilities over benign hidden states.

    ``F = E[J' (diag p - p p') J]`` with the rows of J those of the unembedding times
    the final norm's weight over the state's spread; the change of the spread itself is
    left out. Where all next tokens are certain, F is nothing but rounding, and the
    identity is returned in its place: the plain metric.

    Parameters
    ----------
    unembedding : Unembedding
    hidden : Tensor
        (n, hidden) what the final norm reads at benign positions.
    """
    # The one copy in float32: what a norm does to its rows is done to sums of them.
    head = WideHead(unembedding.weight)
    vocabulary, width = head.shape
    weights = 1.0 / spread(hidden, unembedding.centred).to(head.device)
    weights = weights / weights.mean()
    size = len(hidden)
    mean_token = torch.zeros(vocabulary, device=head.device)
    second_moment = torch.zeros_like(mean_token)
    products = []
    for part, logits in logits_in_blocks(unembedding, hidden, head=head):
        p = torch.softmax(logits, dim=-1)
        mean_token += p.sum(dim=0) / size
        second_moment += weights[part].square() @ p / size
        products.append(unembedding.pull_back(head.mixed(p)) * weights[part, None])
    means = torch.cat(products)
    second = torch.zeros(width, width, device=head.device)
    for some, rows in head.blocks():
        second += rows.T @ (rows * second_moment[some, None])
    second = unembedding.pull_back(unembedding.pull_back(second).T)
    fisher = second - means.T @ means / size
    if torch.trace(fisher) <= ROUNDING * torch.trace(second):
        # All next tokens are certain, and what is left of the difference is rounding.
        fisher = torch.eye(len(fisher), device=fisher.device)
    return TokenStatistics(as_floats(fisher), mean_token)


def spread(x: Tensor, centred: bool) -> Tensor:
    """What a norm divides rows by: root mean square, of the centred row if so asked."""
    x = x.float()
    if centred:
        x = x - x.mean(dim=-1, keepdim=True)
    return x.square().mean(dim=-1).sqrt()


def token_directions(
    tokens: Sequence[int],
    target: Target,
    unembedding: Unembedding,
    statistics: TokenStatistics | None,
) -> Floats:
    """Directions (tokens, d_out) of a target's output that raise the tokens' logits.

    Given statistics, the mean one of what is said on benign text is subtracted.
    """
    directions = as_floats(unembedding.directions(tokens, target))
    if statistics is not None:
        directions -= as_floats(statistics.mean_direction(unembedding, target))
    return directions


def logit_scale(
    target: Target, unembedding: Unembedding, state: Tensor, outputs: Tensor
) -> Floats:
    """What the norms behind a target divide rows by, (m,).

    Parameters
    ----------
    state : Tensor, shape (m, hidden)
        What the final norm reads.
    outputs : Tensor, shape (m, d_out)
        Of the target.
    """
    scale = spread(state, unembedding.centred)
    if target.after is not None:
        centred = norm_scale(target.after, target.d_out).centred
        # A model may end on another device than the layer is on.
        scale = scale * spread(outputs, centred).to(scale.device)
    return as_floats(scale)
