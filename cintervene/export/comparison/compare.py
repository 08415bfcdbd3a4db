# SPDX-License-Identifier: Apache-2.0
"""What differs between two models, and which interventions explain it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from torch import Tensor, nn

from cintervene.export.checkpoint.tensors import Tensors, paired, tensors_of
from cintervene.export.comparison.residue import Residue
from cintervene.intervention.edit import Edit
from cintervene.intervention.intervention import Intervention
from cintervene.models.saved import alike
from cintervene.models.weights import same_bits
from cintervene.utils.progress import Progress, counting, silent

__all__ = ["Comparison", "Difference", "compare"]

Model: TypeAlias = "str | os.PathLike[str] | nn.Module"
# How many interventions on one weight are tried together, in every combination.
TOGETHER = 4


@dataclass(frozen=True)
class Difference:
    """One tensor that is not the same in both models.

    Attributes
    ----------
    name : str
    kind : {"values", "type", "shape", "only before", "only after"}
    relative_norm : float or None
        Frobenius norm of after - before, over that of before.
    rank : int or None
        Of after - before above its rounding, where that is low.
    explained_by : tuple of int
        Indices of the interventions whose changes the difference is; () if none are.
    exact : bool
        Whether they give the very bits.
    residual : float or None
        What they leave unexplained, relative to the norm of the difference: rounding.
    """

    name: str
    kind: str
    relative_norm: float | None = None
    rank: int | None = None
    explained_by: tuple[int, ...] = ()
    exact: bool = False
    residual: float | None = None


@dataclass(frozen=True)
class Comparison:
    """How two models differ.

    Attributes
    ----------
    tensors : int
        In both models.
    differences : list of Difference
    """

    tensors: int
    differences: list[Difference]

    @property
    def same(self) -> bool:
        """Whether all tensors are the same, to the bit."""
        return not self.differences

    @property
    def explained(self) -> bool:
        """Whether the interventions explain all that differs."""
        return all(difference.explained_by for difference in self.differences)

    def __str__(self) -> str:
        if self.same:
            return f"all {self.tensors} tensors are the same, to the bit"
        lines = [f"{len(self.differences)} of {self.tensors} tensors differ"]
        lines += [f"  {_describe(difference)}" for difference in self.differences]
        return "\n".join(lines)


def compare(
    before: Model,
    after: Model,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    progress: Progress = silent,
) -> Comparison:
    """Tell which tensors differ between two models, by how much, and why.

    Parameters
    ----------
    before, after : path or nn.Module
        A directory with safetensors, of which one pair of tensors at a time is read, or
        a loaded model.
    interventions : Intervention or sequence of Intervention, optional
        Those that might explain the differences, each alone or several of them added.
    progress : callable, optional
        Called as it goes; see `Progress`.

    Returns
    -------
    Comparison

    Raises
    ------
    ModelError
        A directory holds no model, or a parameter is on the meta device.
    """
    if isinstance(interventions, Intervention):
        interventions = [interventions]
    old, new = tensors_of(before, "before"), tensors_of(after, "after")
    pairs, lost, added = paired(old, new)
    differences = [Difference(name, "only before") for name in lost]
    differences += [Difference(name, "only after") for name in added]
    report = counting(progress, "comparing tensors", len(pairs))
    for name, other in pairs.items():
        if old.shape(name) != new.shape(other):
            differences.append(Difference(name, "shape"))
        else:
            differences += _difference(old, name, new, other, interventions)
        report(1)
    total = len(pairs) + len(lost) + len(added)
    differences.sort(key=lambda difference: _natural(difference.name))
    return Comparison(total, differences)


def _difference(
    old: Tensors,
    name: str,
    new: Tensors,
    other: str,
    interventions: Sequence[Intervention],
) -> Iterator[Difference]:
    """At most one: what became of a tensor of one shape."""
    a, b = old.read(name), new.read(other)
    same_type = a.dtype == b.dtype
    if same_type and same_bits(a, b):
        return
    residue = Residue(a, b)
    edits = {}
    for index, intervention in enumerate(interventions):
        edit = _edit(intervention, name, tuple(a.shape))
        if edit is not None:
            edits[index] = edit
    chosen, exact, left = _explain(a, b, residue, edits)
    yield Difference(
        name,
        "values" if same_type else "type",
        residue.relative_norm,
        residue.rank() if a.ndim == 2 else None,
        chosen,
        exact,
        left,
    )


def _edit(intervention: Intervention, name: str, shape: tuple[int, ...]) -> Edit | None:
    """The edit that a tensor may carry, under its own name or one that ends alike."""
    edits = intervention.edits
    keys = alike({key: edit.shape for key, edit in edits.items()}, name, shape)
    return edits[keys[0]] if keys else None


def _explain(
    a: Tensor, b: Tensor, residue: Residue, edits: dict[int, Edit]
) -> tuple[tuple[int, ...], bool, float | None]:
    """Find the interventions whose changes, one after the other, turn `a` into `b`."""
    best: tuple[int, ...] = ()
    least = None
    for size in range(1, min(len(edits), TOGETHER) + 1):
        for chosen in combinations(edits, size):
            result = a.clone()
            for index in chosen:
                result = edits[index].added(result, edits[index].base_form(result))
            if result.dtype == b.dtype and same_bits(result, b):
                return chosen, True, residue.without([edits[i] for i in chosen])
            left = residue.without([edits[index] for index in chosen])
            if left <= residue.tolerance(size) and (least is None or left < least):
                best, least = chosen, left
    return best, False, least


def _describe(difference: Difference) -> str:
    parts = [difference.name, difference.kind]
    if difference.relative_norm is not None:
        parts.append(f"{difference.relative_norm:.3%} of its norm")
    if difference.rank is not None:
        parts.append(f"rank {difference.rank}")
    if difference.explained_by:
        numbers = ", ".join(str(index + 1) for index in difference.explained_by)
        how = "to the bit" if difference.exact else "within rounding"
        parts.append(f"intervention {numbers}, {how}")
    return "  ".join(parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer 2 before layer 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(p), "") if p.isdigit() else (0, p) for p in parts]
