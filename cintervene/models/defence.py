# SPDX-License-Identifier: Apache-2.0
"""Every defence of a model, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.models.avoiding import avoid_harm
from cintervene.models.forbidding import forbid_words
from cintervene.models.intervention import Intervention
from cintervene.models.refusing import teach_refusal

__all__ = ["METHODS", "defend"]

METHODS: dict[str, Callable[..., Intervention]] = {
    "pcr": forbid_words,
    "tsr": teach_refusal,
    "arr": avoid_harm,
}


def defend(
    model: nn.Module,
    tokenizer: Any,
    forbid: Sequence[str] | None = None,
    *,
    method: str = "pcr",
    **options: Any,
) -> Intervention:
    """Find a small change of a few weights after which a model is safer.

    The model is left as it was; give the result to `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    forbid : sequence of str
        Words not to say, for ``"pcr"`` only.
    method : {"pcr", "tsr", "arr"}
        What is wanted of the model:

        - ``"pcr"``, point-constrained regions: that it does not say the words of
          `forbid`; see `models.forbid_words`.
        - ``"tsr"``, towards the safe region: that it refuses the requests
          ``harmful=``; see `models.teach_refusal`.
        - ``"arr"``, away from the risk region: that its own answers to these become
          unlikely, the least defended most; see `models.avoid_harm`.
    **options
        Those of the method: `layers`, `preserve`, `max_kl` and `progress` for all.

    Returns
    -------
    Intervention

    Raises
    ------
    ArgumentError
        The method is unknown, or an option is out of range.
    ModelError
        The model has no layers that can be changed.
    """
    if method not in METHODS:
        valid = ", ".join(repr(name) for name in METHODS)
        raise ArgumentError(f"method: got {method!r}; expected one of {valid}")
    if method == "pcr":
        if forbid is None:
            raise ArgumentError("forbid: got none; expected the words not to say")
        options["forbid"] = forbid
    elif forbid is not None:
        raise ArgumentError(
            f'forbid: is for method "pcr"; give harmful= to method {method!r}'
        )
    return METHODS[method](model, tokenizer, **options)
