# SPDX-License-Identifier: Apache-2.0
"""A change of a model's weights that can be applied, taken back, stored and added.

An intervention remembers the bits it was made for. It applies only to those, knows its
own result again, and takes itself back bit by bit: on a model that this process changed
from the kept original weights, on any other copy of the result from the recorded
difference of the bits, which costs less than the factors for 16-bit weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from torch import nn

from cintervene.errors import ArgumentError, InterventionError, NonFiniteError
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.application import (
    Applied,
    apply_edits,
    revert_edits,
    stored_weights,
)
from cintervene.intervention.edit import Edit, digest_of
from cintervene.intervention.file import RECORD, read, write
from cintervene.intervention.hub import FILE, fetch
from cintervene.models.stored import StoredWeights
from cintervene.models.targets import Target
from cintervene.models.weights import dtype_name
from cintervene.models.wrapped import name_of, unwrapped
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.html import html_table
from cintervene.utils.validation import number
from cintervene.utils.versions import library_versions

Model = TypeVar("Model", bound=nn.Module)


class Intervention:
    """Low-rank changes of some weights of a model, with where they come from.

    Made by `Intervention.of` (or by `cintervene.defend`), or loaded from a file.

    Attributes
    ----------
    edits : dict of str to Edit
        By parameter name.
    model : str
        What the model was called.
    options, metrics : dict
        How the change was made and what was measured of it; as JSON.
    versions : dict of str to str
        Of the libraries it was made with.
    """

    def __init__(
        self,
        edits: Mapping[str, Edit],
        *,
        model: str = "",
        options: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        if not edits:
            raise ArgumentError("edits: got none, expected at least one changed weight")
        self.edits = dict(edits)
        self.model = model
        self.options = dict(options or {})
        self.metrics = dict(metrics or {})
        self.versions = dict(library_versions() if versions is None else versions)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        updates: Iterable[tuple[Target, LowRankUpdate]],
        *,
        options: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        reversible: bool = True,
    ) -> Intervention:
        """Make an intervention for `model` as it is now; the model is not changed.

        Parameters
        ----------
        model : nn.Module
        updates : iterable of (Target, LowRankUpdate)
            One for each weight to change.
        options, metrics : mapping, optional
            Kept and stored with it; anything that JSON can hold.
        reversible : bool, default True
            Record the difference of the bits, so that any copy of the changed model can
            be taken back. That costs some tenths of the size of the changed 16-bit
            weights, and nearly all of that of 32-bit ones. Where the model's files hold
            the weights in another type it is recorded for that too.

        Raises
        ------
        ArgumentError
            There are no updates, one has the wrong shape, or two are for one weight.
        InterventionError
            A weight holds Inf or NaN.
        """
        edits: dict[str, Edit] = {}
        model = unwrapped(model)
        files = StoredWeights(model)
        for target, update in updates:
            if target.name in edits:
                raise ArgumentError(f"updates: got two for {target.name}, expected one")
            if update.shape != (target.d_out, target.d_in):
                raise ArgumentError(
                    f"updates: got shape {update.shape} for {target.name}, expected "
                    f"({target.d_out}, {target.d_in})"
                )
            # What cannot be applied leaves nothing to be taken back.
            undo = reversible and not target.quantised
            weight = target.weight
            edits[target.name] = Edit.of(
                target.name,
                weight,
                update,
                target.layer,
                target.transposed,
                undo,
                files.find(target.name, weight) if undo else None,
            )
        return cls(edits, model=name_of(model), options=options, metrics=metrics)

    @property
    def updates(self) -> dict[str, LowRankUpdate]:
        """The changes of the (d_out, d_in) matrices by parameter name."""
        return {name: edit.update for name, edit in self.edits.items()}

    @property
    def digest(self) -> str:
        """sha256 of the changes: names, orientation and factors."""
        return digest_of(self.edits)

    def apply(self, model: nn.Module) -> Applied:
        """Change the weights of `model` in place, each rounded once.

        That is to its own type, or to the one that the intervention was made for where
        the weight is the same in a wider type: the change is the same then, and can be
        taken back. All weights are changed or, if anything goes wrong, none.

        Raises
        ------
        InterventionError
            The model is another one, has other weights than those the intervention was
            made for, carries it already, holds them quantised or on a disk, nothing
            would change, or a result would be out of the range of its type.
        """
        return apply_edits(model, self.edits, self.model)

    def revert(self, model: nn.Module) -> None:
        """Give the weights of `model` their bits from before `apply` back.

        Works on a model that this process applied the intervention to, and on any copy
        of the changed model if the intervention is `reversible`.

        Raises
        ------
        InterventionError
            The intervention is not applied, the weights were changed since, or the
            original bits are not known.
        """
        revert_edits(model, self.edits, self.model)

    @contextmanager
    def applied(self, model: Model) -> Iterator[Model]:
        """Apply inside a `with` block and revert at its end, whatever happens."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def is_reversible(self) -> bool:
        """Tell whether the difference of the bits is recorded for every weight."""
        return all(edit.flips is not None for edit in self.edits.values())

    def rebase(self, model: nn.Module, *, reversible: bool = True) -> Intervention:
        """Return the same changes made for `model` as it is now, without a comparison.

        For weights stored in another type, or for another base on purpose.

        Raises
        ------
        InterventionError
            The model lacks one of the weights, or it has another shape.
        """
        model = unwrapped(model)
        files, edits = StoredWeights(model), {}
        for name, weight in stored_weights(model, self.edits, self.model).items():
            elsewhere = files.find(name, weight) if reversible else None
            edits[name] = self.edits[name].rebased(name, weight, reversible, elsewhere)
        return self._with(edits, self.options, self.metrics)

    def scale(self, factor: float) -> Intervention:
        """Return the intervention with all changes multiplied by `factor`.

        What was measured of the original does not hold for it and is left out, so that
        it can be saved whatever limits the original crossed.

        Raises
        ------
        ArgumentError
            `factor` is not finite, or so large that a change is not.
        """
        if not math.isfinite(number(factor)):
            raise ArgumentError(f"factor: got {factor!r}, expected a finite number")
        try:
            edits = {
                name: edit.with_update(edit.update * float(factor))
                for name, edit in self.edits.items()
            }
        except NonFiniteError as error:
            raise ArgumentError(
                f"factor: got {factor!r}, which makes infinite changes; expected a "
                "smaller number"
            ) from error
        return self._with(edits, {"scaled_by": float(factor), "from": self.options}, {})

    def __add__(self, other: Intervention) -> Intervention:
        """Return the sum of two interventions on one base; it has no `metrics`."""
        if not isinstance(other, Intervention):
            return NotImplemented
        edits = dict(self.edits)
        for name, edit in other.edits.items():
            mine = edits.get(name)
            if mine is None:
                edits[name] = edit
                continue
            if not mine.same_base(edit):
                raise InterventionError(
                    f"{name}: the two interventions were made for different weights; "
                    "rebase one onto the other's base first"
                )
            edits[name] = mine.with_update(mine.update + edit.update)
        return self._with(edits, {"sum_of": [self.options, other.options]}, {})

    def save(
        self, path: str | os.PathLike[str], *, beyond_limits: bool = False
    ) -> None:
        """Write one safetensors file, whole or not at all.

        Parameters
        ----------
        path : path
        beyond_limits : bool, default False
            Write it even if it crossed the limits it was made within (`max_kl=` and
            others) on the tuning split. Where nothing was measured nothing is refused:
            changes by `Intervention.of`, scaled or added ones.

        Raises
        ------
        InterventionError
            It crossed its limits, and `beyond_limits` is False.
        OSError
            The file cannot be written; a file that was there stays as it was.
        ArgumentError
            Options or metrics hold what JSON cannot.
        """
        check_limits(self, beyond_limits)
        record = {key: getattr(self, key) for key in RECORD}
        write(path, self.edits, record)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Intervention:
        """Read what `save` wrote.

        Raises
        ------
        OSError
            The file is missing or cannot be read.
        InterventionError
            It is not an intervention, or it is damaged.
        """
        edits, record = read(path)
        return cls(edits, **record)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | bool | None = None,
        revision: str | None = None,
        report: Mapping[str, Any] | None = None,
        beyond_limits: bool = False,
    ) -> str:
        """Publish it on the hub of Hugging Face, with its model card.

        Parameters
        ----------
        repo_id : str
            "owner/name"; the repository is made if there is none.
        private : bool, default True
            Whether a new repository is. The file and the card hold forbidden words in
            clear.
        token : str or bool, optional
            As huggingface_hub takes it; by default the one that is logged in.
        revision : str, optional
            Branch to commit to.
        report : mapping, optional
            For the card, a ``report.json`` about this intervention.
        beyond_limits : bool, default False
            As for `save`.

        Returns
        -------
        str
            Where it can be seen.

        Raises
        ------
        InterventionError
            It crossed its limits, the report is about another one, or the hub refuses.
        ArgumentError
            `repo_id` is no name of a repository.
        ImportError
            huggingface_hub is not installed.
        """
        # Cards are written on a floor above, which is loaded when it is asked for.
        hub = import_module("cintervene.export.hub")
        return str(
            hub.push(
                self, repo_id, private=private, token=token, revision=revision,
                report=report, beyond_limits=beyond_limits,
            )
        )  # fmt: skip

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> Intervention:
        """Fetch what `push_to_hub` published; kept in the hub's own cache.

        Parameters
        ----------
        repo_id : str
            "owner/name".
        revision : str, optional
            Branch, tag or commit.
        token : str or bool, optional
            As for `push_to_hub`.

        Raises
        ------
        InterventionError
            There is no such repository or file, the hub cannot be reached, or what it
            has is no intervention or damaged.
        ArgumentError
            `repo_id` is no name of a repository.
        ImportError
            huggingface_hub is not installed.
        """
        return cls.load(fetch(repo_id, FILE, revision=revision, token=token))

    def summary(self) -> str:
        """Return a table of what is changed."""
        width = max(len(name) for name in self.edits)
        lines = [
            repr(self),
            f"layer  {'weight':{width}}  {'shape':>13}  type      rank     norm  "
            "relative",
        ]
        for name, edit in self._by_layer():
            d_out, d_in = edit.update.shape
            lines.append(
                f"{edit.layer:5d}  {name:{width}}  {f'{d_out} x {d_in}':>13}  "
                f"{dtype_name(edit.dtype):8}  {edit.update.rank:4d}  "
                f"{edit.update.norm:7.3g}  {edit.relative_norm:8.2%}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        rank = max(edit.update.rank for edit in self.edits.values())
        size = max(edit.relative_norm for edit in self.edits.values())
        return (
            f"<Intervention on {self.model or 'a model'}: {len(self.edits)} weights, "
            f"rank up to {rank}, up to {size:.2%} of a weight's norm>"
        )

    def _repr_html_(self) -> str:
        """What notebooks show: what is changed, as `summary` has it."""
        rows = [
            (
                str(edit.layer), name, " x ".join(map(str, edit.update.shape)),
                dtype_name(edit.dtype), str(edit.update.rank),
                f"{edit.relative_norm:.2%}",
            )
            for name, edit in self._by_layer()
        ]  # fmt: skip
        head = ("layer", "weight", "shape", "type", "rank", "share of the norm")
        caption = f"Intervention on {self.model or 'a model'}"
        return html_table(head, rows, (0, 2, 4, 5), caption=caption)

    def _by_layer(self) -> list[tuple[str, Edit]]:
        return sorted(self.edits.items(), key=lambda item: item[1].layer)

    def _with(
        self,
        edits: Mapping[str, Edit],
        options: Mapping[str, Any],
        metrics: Mapping[str, Any],
    ) -> Intervention:
        return Intervention(edits, model=self.model, options=options, metrics=metrics)
