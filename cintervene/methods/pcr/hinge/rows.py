# SPDX-License-Identifier: Apache-2.0
"""What enters an MLP where forbidden words are about to be said, and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.activations.layer_stream import Asked, LayerStream, finals
from cintervene.methods.common.gated_mlp import GatedMLP
from cintervene.methods.pcr.constraints import TokenConstraintIndex
from cintervene.models.parts import ModelParts
from cintervene.models.resident import resident
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.progress import Step

__all__ = ["HingeRows", "Singles"]

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

# Every so manieth token of prompts is looked at.
PROMPT_STEP = 3


@dataclass(frozen=True, eq=False)
class HingeRows:
    """Inputs of an MLP in float32, and states that the final norm reads.

    Attributes
    ----------
    said : ndarray, shape (m, hidden)
        Where a forbidden word's token comes next.
    owners : ndarray of int, shape (m,)
        Number of that word.
    first : ndarray of bool, shape (m,)
        Whether the word begins there.
    enough : ndarray of bool, shape (m,)
        Whether the word is told there by what has been said, or said with one token:
        where it goes on, but not before a phrase's last part, for what a phrase begins
        with is said elsewhere, too.
    opening : ndarray of bool, shape (m,)
        Whether the answer begins with it there.
    tokens : list of dict of int to float
        For each of these rows the tokens that shall fall, and how distinctive they are.
    near_tokens : set of int
        What benign words begin and go on with.
    other : ndarray, shape (N, hidden)
        All other tokens: prompts, everyday answers, running text.
    benign : ndarray, shape (k, hidden)
        Of near rows, and of everyday answers and running text: what follows is the
        model's to say, and must stay.
    near_count : int
        How many of these are near rows, which come first.
    unsaid : ndarray of bool, shape (k - near_count,)
        Before which of the others no forbidden word comes next.
    said_states : Tensor, shape (m, hidden)
    benign_states : Tensor, shape (k, hidden)
    """

    said: Singles
    owners: Ints
    first: npt.NDArray[np.bool_]
    enough: npt.NDArray[np.bool_]
    opening: npt.NDArray[np.bool_]
    tokens: list[dict[int, float]]
    near_tokens: set[int]
    other: Singles
    benign: Singles
    near_count: int
    unsaid: npt.NDArray[np.bool_]
    said_states: Tensor
    benign_states: Tensor

    @property
    def near(self) -> Singles:
        """Where a benign word comes in the place of a forbidden one, (n, hidden)."""
        return self.benign[: self.near_count]

    @property
    def everyday(self) -> Singles:
        """Everyday answers and text where no forbidden word comes next, (e, hidden)."""
        return self.benign[self.near_count :][self.unsaid]

    @classmethod
    def gather(
        cls,
        parts: ModelParts,
        mlp: GatedMLP,
        words: Sequence[str],
        calibration: Calibration,
        entered: Step,
        others: Sequence[Asked] = (),
    ) -> tuple[HingeRows, list[LayerStream]]:
        """Run the base model over the calibration texts.

        Parameters
        ----------
        parts : ModelParts
        mlp : GatedMLP
        words : sequence of str
        calibration : Calibration
            Its `tune_*` parts are not used.
        entered : callable
            Called with numbers of spans that have come to the layer.
        others : sequence of Asked, optional
            What else is to come to the layer: offloaded ones below are read once.

        Returns
        -------
        rows : HingeRows
        streams : list of LayerStream
            Of the others, before the layer.
        """
        index = TokenConstraintIndex.of(calibration.forget)
        retain, beside = calibration.retain, calibration.near_negatives
        (said, near, everyday), streams = _parts(
            parts, mlp,
            [
                (calibration.forget, index.wanted(len(calibration.forget))),
                (beside, [span.positions for span in beside]),
                (retain, [span.positions for span in retain]),
            ],
            entered, others,
        )  # fmt: skip
        tokens: list[dict[int, float]] = [{} for _ in index.positions]
        pairs = zip(index.rows, index.columns, index.weights, strict=True)
        for row, column, weight in pairs:
            tokens[row][int(index.tokens[column])] = float(weight)
        numbers = {word: number for number, word in enumerate(words)}
        spans = [calibration.forget[sequence] for sequence in index.sequences]
        begin, end = np.array(
            [(span.positions[0], span.positions[-1]) for span in spans]
        ).T
        rest = np.array([max(span.before_last_part, 1) for span in spans])
        first = index.positions == begin
        enough = (index.positions >= begin + rest) | (index.positions == end)
        rows = cls(
            said=said.inputs,
            owners=np.array([numbers[span.word] for span in spans]),
            first=first,
            enough=enough,
            opening=first & ~np.array([span.later for span in spans]),
            tokens=tokens,
            near_tokens={
                token for span in calibration.near_negatives for token in span.targets
            },
            other=np.concatenate([said.others, near.others, everyday.rows]),
            benign=np.concatenate([near.inputs, everyday.inputs]),
            near_count=len(near.inputs),
            unsaid=~_said(calibration),
            said_states=said.states,
            benign_states=torch.cat([near.states, everyday.states]),
        )
        return rows, streams


def _said(calibration: Calibration) -> npt.NDArray[np.bool_]:
    """At which of the targets of everyday spans a forbidden word is said."""
    if calibration.retain_said:
        return np.concatenate([np.array(one) for one in calibration.retain_said])
    return np.zeros(sum(len(span.targets) for span in calibration.retain), bool)


class _Part:
    """Some spans: rows where something matters, and others.

    Attributes
    ----------
    rows : ndarray, shape (N, hidden)
        Of the MLP at both.
    inputs : ndarray, shape (m, hidden)
        At the wanted positions.
    others : ndarray, shape (N - m, hidden)
        At some of the positions before the first wanted one.
    states : Tensor, shape (m, hidden)
        What the final norm reads at the wanted positions.
    """

    def __init__(
        self, rows: Singles, matters: npt.NDArray[np.bool_], states: Tensor
    ) -> None:
        self.rows = rows
        self.inputs, self.others = rows[matters], rows[~matters]
        self.states = states[torch.from_numpy(matters)]


def _parts(
    parts: ModelParts,
    mlp: GatedMLP,
    spans: Sequence[tuple[Sequence[TargetSpan], Sequence[Sequence[int]]]],
    entered: Step,
    others: Sequence[Asked],
) -> tuple[list[_Part], list[LayerStream]]:
    """Run spans, each with wanted positions, up to the MLP and to the final norm.

    And others up to the layer.
    """
    before = [
        [range(1, min(positions, default=1), PROMPT_STEP) for positions in wanted]
        for _, wanted in spans
    ]
    asked = [
        Asked(of, [[*b, *w] for b, w in zip(some, wanted, strict=True)])
        for (of, wanted), some in zip(spans, before, strict=True)
    ]
    layer = mlp.block.layer
    streams = LayerStream.several(
        parts.decoder, [*asked, *others], layer, entered=entered, block=mlp.block
    )
    streams, beside = streams[: len(asked)], streams[len(asked) :]
    with resident(parts.decoder.layers[layer]):
        rows = [stream.run(layer).inputs.cpu().float().numpy() for stream in streams]
    matters = [
        np.concatenate(
            [
                np.arange(len(b) + len(w)) >= len(b)
                for b, w in zip(some, wanted, strict=True)
            ]
        )
        for (_, wanted), some in zip(spans, before, strict=True)
    ]
    return list(map(_Part, rows, matters, finals(streams))), beside
