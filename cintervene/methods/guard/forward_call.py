# SPDX-License-Identifier: Apache-2.0
"""One forward call of a model under guard: its sequences, and what passed its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cintervene.errors import ModelError
from cintervene.methods.guard.output_shift import OutputPosition
from cintervene.methods.guard.state import SequenceState

__all__ = ["BoundedLogits", "ForwardCall", "Positions"]


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of a call.

    Attributes
    ----------
    rows, columns : Tensor
        Where they are in the batch.
    kept : Tensor
        Where they are among the positions that have logits.
    """

    rows: Tensor
    columns: Tensor
    kept: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Positions:
        return Positions(self.rows[index], self.columns[index], self.kept[index])

    def without(self, ends: Positions) -> Positions:
        """The others, where `ends` has one position for each row of the batch."""
        return self[self.columns != ends.columns[self.rows]]

    def behind(self, ends: Positions) -> Positions:
        """Those behind such a position."""
        return self[self.columns > ends.columns[self.rows]]

    def chunks(self, size: int) -> Iterator[Positions]:
        """The same, so many at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(eq=False)
class ForwardCall:
    """One forward call of the model, filled in as it goes on.

    Attributes
    ----------
    state : SequenceState
        Of the sequences it goes on with.
    past : int
        Tokens that are in the cache already.
    length : int
        Positions of this call.
    arguments : Mapping
        Of the model's `forward`, by name.
    open : bool
        Whether the call is still going on.
    inputs, outputs : Tensor
        (batch, length, d_in) and (batch, length, d_out), of the last down projection.
    residual, normed : Tensor
        (batch, length, hidden), before and after the final norm.
    """

    state: SequenceState
    past: int
    length: int
    arguments: Mapping[str, Any]
    open: bool = True
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))
    residual: Tensor = field(default_factory=lambda: torch.empty(0))
    normed: Tensor = field(default_factory=lambda: torch.empty(0))

    def batched(self, values: Tensor) -> Tensor:
        """Values of all positions as (batch, length, ...); OPT's MLP has one axis."""
        return values.reshape(len(self.state.tokens), -1, values.shape[-1])

    @property
    def seen(self) -> bool:
        """Whether all of the end of the model was passed; drafts leave layers out."""
        return self.open and bool(self.inputs.numel() and self.normed.numel())

    @property
    def prompt(self) -> bool:
        """Whether a prompt, or a part of one, is being read.

        It is where nothing was read before, and where logits are not asked for at each
        position: code that generates reads all of them, drafts included.
        """
        return not self.past or len(self._asked()) < self.length

    def positions(self, count: int) -> Positions:
        """All that have logits, `count` of them in each row, and are no padding."""
        kept = self._kept(count)
        rows = torch.arange(len(self.state.tokens))
        mask = self._mask()
        at = Positions(
            rows.repeat_interleave(count), kept.repeat(len(rows)),
            torch.arange(count).repeat(len(rows)),
        )  # fmt: skip
        return at if mask is None else at[mask[at.rows, at.columns] > 0]

    def prompt_ends(self, count: int) -> Positions:
        """The last position of each row's prompt.

        Drafted tokens may follow it. So it is the first one with logits, where not all
        have them; otherwise the last one that is no padding.
        """
        kept = self._kept(count)
        rows = torch.arange(len(self.state.tokens))
        columns = torch.full_like(rows, int(kept[0]))
        if count == self.length:
            mask = self._mask()
            columns = torch.full_like(rows, self.length - 1)
            if mask is not None:
                columns = (mask * torch.arange(1, self.length + 1)).argmax(dim=1)
        at = columns if count == self.length else torch.zeros_like(rows)
        return Positions(rows, columns, at)

    def history(self, row: int, column: int, reach: int) -> Sequence[int]:
        """The last tokens up to a position, that one included."""
        end = self.past + column + 1
        return self.state.tokens[row][max(0, end - reach) : end]

    def at(self, positions: Positions, logits: Tensor) -> OutputPosition:
        """What passed the end of the model there."""
        rows, columns = positions.rows, self._from_end(positions.columns)
        inputs, outputs, residual = (
            x.detach()[rows, columns]
            for x in (self.inputs, self.outputs, self.residual)
        )
        return OutputPosition(inputs, outputs, residual, logits)

    def replace(self, positions: Positions, by: OutputPosition) -> None:
        """Let other outputs have passed there."""
        self.outputs, self.residual = self.outputs.clone(), self.residual.clone()
        rows, columns = positions.rows, self._from_end(positions.columns)
        self.outputs[rows, columns] = by.outputs
        self.residual[rows, columns] = by.residual

    def check_kept(self, normed: Tensor) -> None:
        """Refuse logits of other positions than those asked for."""
        kept = self._from_end(self._kept(normed.shape[1])).to(normed.device)
        if not torch.equal(self.normed[:, kept], normed):
            raise ModelError(
                "the head was given other states than those at the positions of "
                "logits_to_keep; a guard cannot tell what its logits are of"
            )

    def _from_end(self, columns: Tensor) -> Tensor:
        """Columns as they are counted from the end.

        Models that share keys and values run only the last positions, those that have
        logits, through their last layers (Gemma 4).
        """
        return columns - self.length

    def _asked(self) -> Tensor:
        """Columns whose logits the call asks for."""
        asked = self.arguments.get("logits_to_keep")
        every = torch.arange(self.length)
        if isinstance(asked, Tensor):
            return every[asked.cpu()]
        return every[-asked:] if asked else every

    def _kept(self, count: int) -> Tensor:
        """Columns that have logits, the last `count` unless others were asked for."""
        asked = self._asked()
        last = torch.arange(self.length - count, self.length)
        return asked if len(asked) == count else last

    def _mask(self) -> Tensor | None:
        """1 where there is no padding, (batch, length), if the call says so.

        Masks in the form that attention takes do not; they are made while generating,
        which pads on the left.
        """
        mask = self.arguments.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            return None
        return mask[:, -self.length :].cpu().long()


class BoundedLogits:
    """The logits of a call, of which some are changed.

    Parameters
    ----------
    call : ForwardCall
    normed : Tensor
        (batch, kept, hidden), what the head read.
    logits : Tensor
        (batch, kept, vocabulary), as the head returned them.

    Attributes
    ----------
    changed : Tensor or None
        All of them; None where none was changed.
    """

    def __init__(self, call: ForwardCall, normed: Tensor, logits: Tensor) -> None:
        self._call, self._normed, self._logits = call, normed, logits
        self.changed: Tensor | None = None

    def at(self, positions: Positions) -> Tensor:
        """Those of some positions, (positions, vocabulary)."""
        logits = self._logits if self.changed is None else self.changed
        return logits.detach()[positions.rows, positions.kept]

    def write(self, positions: Positions, logits: Tensor) -> None:
        """Change those of some positions."""
        if self.changed is None:
            self._call.check_kept(self._normed)
            self.changed = self._logits.detach().clone()
        self.changed[positions.rows, positions.kept] = logits.to(self.changed.dtype)
