# SPDX-License-Identifier: Apache-2.0
"""Changing the weights of a model in memory, and giving them their bits back.

Of each change the original weights are kept as long as the model lives, so that a
model that this process changed is put back from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cintervene.errors import InterventionError
from cintervene.intervention.edit import Edit, Form, digest_of
from cintervene.models.offload import in_memory, is_offloaded, parameter_value
from cintervene.models.quantised import is_quantised
from cintervene.models.sharded import (
    FLAT,
    memory_of,
    part_anew,
    sharding,
    whole,
    why_unparted,
    write,
)
from cintervene.models.stored import StoredWeights
from cintervene.models.weights import FLOAT_DTYPES, dtype_name, same_bits, sha256
from cintervene.models.wrapped import submodule, unwrapped

__all__ = [
    "Applied", "apply_edits", "base_forms", "can_change", "changeable_weights",
    "revert_edits", "stored_weights",
]  # fmt: skip

Edits = Mapping[str, Edit]
T = TypeVar("T")


@dataclass(frozen=True)
class Applied:
    """Which weights `Intervention.apply` changed, and which ones rounding kept."""

    changed: list[str]
    unchanged: list[str]


@dataclass(eq=False)
class _Record:
    """What is kept of one application.

    Attributes
    ----------
    digest : str
        Of the edits.
    originals : dict of str to Tensor
    results : dict of str to str
        sha256 of the changed weights.
    """

    digest: str
    originals: dict[str, Tensor]
    results: dict[str, str]


_records: WeakKeyDictionary[nn.Module, list[_Record]] = WeakKeyDictionary()


def apply_edits(model: nn.Module, edits: Edits, made_for: str) -> Applied:
    """Change the weights in place; see `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
    edits : mapping of str to Edit
    made_for : str
        What the model that the edits are for is called, for messages.
    """
    model = unwrapped(model)
    weights = changeable_weights(model, edits, made_for)
    digest = digest_of(edits)
    before = _wholes(weights)
    forms = _forms_unless_applied(model, edits, before, digest)
    originals = {name: values.detach().clone() for name, values in before.items()}
    try:
        for name, values in before.items():
            write(weights[name], edits[name].changed(name, values, forms[name]))
        after = _wholes(weights)
        same = {n for n, values in after.items() if same_bits(originals[n], values)}
        if len(same) == len(weights):
            dtypes = sorted({dtype_name(w.dtype) for w in weights.values()})
            raise InterventionError(
                "nothing was changed: every change is lost in the rounding to "
                f"{', '.join(dtypes)}; scale the intervention up or use a wider type"
            )
        changed = [name for name in weights if name not in same]
        results = {name: sha256(after[name]) for name in changed}
        kept = {name: originals[name] for name in changed}
        _records.setdefault(model, []).append(_Record(digest, kept, results))
    except BaseException:
        _restore(weights, originals)
        raise
    return Applied(changed, sorted(same))


def revert_edits(model: nn.Module, edits: Edits, made_for: str) -> None:
    """Give the weights their bits back; see `Intervention.revert`.

    The parameters are those of `apply_edits`.
    """
    model = unwrapped(model)
    weights = changeable_weights(model, edits, made_for)
    records = _records.get(model, [])
    digest = digest_of(edits)
    record = next((r for r in reversed(records) if r.digest == digest), None)
    if record is None:
        if all(e.result_sha256 == e.base_sha256 for e in edits.values()):
            raise InterventionError("this intervention changes nothing")
        originals = _recovered(model, edits, _wholes(weights))
    else:
        originals = record.originals
        for name, expected in record.results.items():
            if sha256(whole(weights[name])) != expected:
                raise InterventionError(
                    f"{name} was changed after this intervention; take that back "
                    "first (the last one applied is the first to be reverted)"
                )
    try:
        _restore(weights, originals)
    finally:
        if record is not None:
            records.remove(record)


def _forms_unless_applied(
    model: nn.Module, edits: Edits, weights: Mapping[str, Tensor], digest: str
) -> dict[str, Form | None]:
    """`base_forms`; says so where this process changed the weights by these edits."""
    try:
        return base_forms(model, edits, weights)
    except InterventionError as error:
        for record in _records.get(model, []):
            carried = (sha256(weights[n]) == sha for n, sha in record.results.items())
            if record.digest == digest and all(carried):
                raise InterventionError(
                    f"{next(iter(record.results))} carries this intervention already; "
                    "revert it first"
                ) from error
        raise


def base_forms(
    model: nn.Module, edits: Edits, weights: Mapping[str, Tensor]
) -> dict[str, Form | None]:
    """Tell in which form each weight is the base that its edit was made for.

    None where the model holds it rounded, and its files hold the base.

    Raises
    ------
    InterventionError
        One is another weight, is not finite, or carries the edit already.
    """
    stored = StoredWeights(model)
    forms: dict[str, Form | None] = {}
    for name, weight in weights.items():
        read, form = _own_or_stored(stored, name, weight, edits[name].check_base)
        forms[name] = form if read is weight else None
    return forms


def _recovered(
    model: nn.Module, edits: Edits, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The bases of weights that carry their edits, from the recorded bits."""
    stored = StoredWeights(model)
    bases = {}
    for name, weight in weights.items():
        _, base = _own_or_stored(stored, name, weight, edits[name].recover)
        bases[name] = base.to(weight.dtype)
    return bases


def _own_or_stored(
    stored: StoredWeights,
    name: str,
    weight: Tensor,
    function: Callable[[str, Tensor], T],
) -> tuple[Tensor, T]:
    """Call a function with a weight, or if it refuses that, as the files hold it.

    Returns
    -------
    read : Tensor
        What it took.
    result
    """
    try:
        return weight, function(name, weight)
    except InterventionError:
        wider = stored.find(name, weight)
        if wider is None:
            raise
        return wider, function(name, wider)


def can_change(model: nn.Module, names: Iterable[str]) -> bool:
    """Tell whether weights are in a form and at a place where they are changed."""
    part_anew(model)
    return not any(_why_fixed(model, name) for name in names)


def changeable_weights(
    model: nn.Module, edits: Edits, made_for: str
) -> dict[str, Tensor]:
    """Find the weights and refuse those whose change the model would not see.

    Raises
    ------
    InterventionError
        One is missing, has another shape or type, is quantised or on a disk, or two
        share their memory.

    Returns
    -------
    dict of str to Tensor
        What to `write` to; `whole` reads it.
    """
    part_anew(model)
    weights = _weights(model, edits, made_for, _why_fixed)
    storages: dict[int, str] = {}
    for name, weight in weights.items():
        twin = storages.setdefault(memory_of(weight), name)
        if twin != name:
            raise InterventionError(
                f"{name} and {twin} share their memory; a weight is changed once"
            )
    return weights


def stored_weights(model: nn.Module, edits: Edits, made_for: str) -> dict[str, Tensor]:
    """Find the weights, be they in memory or on a disk.

    Raises
    ------
    InterventionError
        One is missing, has another shape or type, or is quantised.
    """
    part_anew(model)
    return _wholes(_weights(model, edits, made_for, _why_unreadable))


def _weights(
    model: nn.Module,
    edits: Edits,
    made_for: str,
    why_not: Callable[[nn.Module, str], str | None],
) -> dict[str, Tensor]:
    """Find the weights in the right shape, unless `why_not` has a reason not to."""
    weights: dict[str, Tensor] = {}
    for name, edit in edits.items():
        reason = why_not(model, name)
        if reason is not None:
            raise InterventionError(reason)
        module = _owner(model, name)
        weight = getattr(module, _key(name), None)
        if module is None or not isinstance(weight, nn.Parameter):
            raise InterventionError(
                f"{type(model).__name__} has no parameter {name}; this "
                f"intervention was made for {made_for or 'another model'}"
            )
        if weight.dtype not in FLOAT_DTYPES or weight.shape != edit.shape:
            raise InterventionError(
                f"{name}: got {tuple(weight.shape)} of {dtype_name(weight.dtype)}, "
                f"expected {edit.shape} of a floating-point type; this "
                f"intervention was made for {made_for or 'another model'}"
            )
        weights[name] = parameter_value(module, _key(name))
    return weights


def _why_fixed(model: nn.Module, name: str) -> str | None:
    return (
        _why_quantised(model, name)
        or _why_away(model, name)
        or _why_frozen(model, name)
        or _why_parted(model, name)
    )


def _why_unreadable(model: nn.Module, name: str) -> str | None:
    return _why_quantised(model, name) or _why_parted(model, name)


def _why_parted(model: nn.Module, name: str) -> str | None:
    kind, reason = sharding(model), None
    if kind is not None:
        reason = why_unparted(getattr(_owner(model, name), _key(name), None))
    if kind == FLAT:
        reason = "it flattens weights of many modules into one"
    if reason is None:
        return None
    return (
        f"{name}: got a weight that is parted among processes by {kind} ({reason}), "
        "expected one that can be put together and parted again; change the "
        "checkpoint with cintervene apply and load that"
    )


def _why_quantised(model: nn.Module, name: str) -> str | None:
    module = _owner(model, name)
    if module is None or not is_quantised(module):
        return None
    return (
        f"{name}: got quantised weights ({type(module).__name__}), expected a matrix "
        "of floats, which alone can be changed; export the intervention with "
        "cintervene.export.lora and load that with peft, or attach it with "
        "cintervene.export.AdapterIntervention"
    )


def _why_away(model: nn.Module, name: str) -> str | None:
    module = _owner(model, name)
    lacking = not isinstance(getattr(module, _key(name), None), nn.Parameter)
    if module is None or lacking or in_memory(module, _key(name)) is not None:
        return None
    if not is_offloaded(module):
        return (
            f"{name}: got a weight on the meta device that nothing brings in, expected "
            "one in memory; load the whole model"
        )
    return (
        f"{name}: got a weight that is offloaded to a disk, expected one in memory; "
        "change the checkpoint with cintervene apply, or attach the intervention with "
        "cintervene.export.AdapterIntervention"
    )


def _why_frozen(model: nn.Module, name: str) -> str | None:
    weight = getattr(_owner(model, name), _key(name), None)
    if not isinstance(weight, Tensor) or not weight.is_inference():
        return None
    return (
        f"{name}: got a weight that was made in inference mode, expected one that can "
        "be changed; load the model outside of torch.inference_mode()"
    )


def _owner(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module that has a weight of this name, perhaps quantised."""
    try:
        return submodule(model, name.rpartition(".")[0])
    except AttributeError:
        return None


def _key(name: str) -> str:
    return name.rpartition(".")[2]


def _restore(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> None:
    """Give weights their values back, all of them even when interrupted."""
    try:
        _copy(weights, originals)
    except BaseException:
        _copy(weights, originals)
        raise


def _copy(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> None:
    for name, original in originals.items():
        write(weights[name], original)


def _wholes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(weight) for name, weight in weights.items()}
