# SPDX-License-Identifier: Apache-2.0
"""Every defence of a model, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cintervene.errors import ArgumentError, RankError
from cintervene.methods.config import MethodConfig
from cintervene.methods.registry import (
    DEFAULT_METHOD,
    Method,
    all_methods,
    find_method,
    method_of,
)
from cintervene.utils.parameters import check_alone
from cintervene.utils.progress import Progress, silent
from cintervene.utils.ranks import exchange, world

if TYPE_CHECKING:
    from torch import nn

    from cintervene.intervention.intervention import Intervention

__all__ = ["check_shared", "configure", "defend"]


def defend(
    model: nn.Module,
    tokenizer: Any,
    config: MethodConfig | None = None,
    *,
    method: str | None = None,
    progress: Progress = silent,
    **parameters: Any,
) -> Intervention:
    """Find a small change of a few weights after which a model is safer.

    The model is left as it was; give the result to `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    config : MethodConfig, optional
        The method and all of its parameters:

        - `PCRConfig`, point-constrained regions: not to say words, what example
          sentences are about, or the answers to harmful requests.
        - `TSRConfig`, towards the safe region: to refuse harmful requests.
        - `ARRConfig`, away from the risk region: not to answer them as it would.
        - `GateConfig`: to refuse them by a few neurons that open there alone.
    method : str, optional
        Without `config`, the method by name, "pcr" by default ("tsr", "arr", "gate").
    progress : callable, optional
        Called as ``progress(phase, done, total)``.
    **parameters
        Without `config`, the parameters of which it is made.

    Returns
    -------
    Intervention

    Raises
    ------
    ArgumentError
        The method or a parameter is unknown, or a parameter is out of range; or the
        method is none whose work processes can share, in a block of `joined`.
    ModelError
        The model has no layers that can be changed.
    RankError
        In a block of `joined`, processes found different changes.

    Examples
    --------
    >>> ci.defend(model, tokenizer, forbid=["bomb", "kidnapping"])
    >>> ci.defend(model, tokenizer, ci.PCRConfig(forbid=["bomb"], max_kl=0.02))
    >>> ci.defend(model, tokenizer, method="gate", harmful=requests)
    """
    if config is None:
        chosen = DEFAULT_METHOD if method is None else method
        config = configure(chosen, parameters)
    else:
        check_alone(["method"] * (method is not None) + list(parameters))
    solve = method_of(config).load()
    config.check_known()
    check_shared(config)
    from cintervene.models.wrapped import unwrapped
    from cintervene.prompts.chat import chat_for

    model = unwrapped(model)
    chat = chat_for(model, tokenizer, config.template_options)
    intervention = solve(model, chat, config, progress)
    _check_same(intervention)
    return intervention


def check_shared(config: MethodConfig) -> None:
    """Refuse a method whose work processes cannot share where several do.

    Raises
    ------
    ArgumentError
    """
    if world() > 1 and not config.dealt:
        raise ArgumentError(
            f"method: {config.method!r} does not share its work, and {world()} "
            "processes were started to share it; start one"
        )


def _check_same(intervention: Intervention) -> None:
    """Refuse changes that differ from rank to rank.

    Raises
    ------
    RankError
    """
    digests = exchange("the digest", lambda: intervention.digest)
    if len(set(digests)) > 1:
        raise RankError(
            f"ranks: found different changes, {digests}; let them run on machines of "
            "one kind, with the same model, versions and numbers of threads"
        )


def configure(method: str, parameters: dict[str, Any]) -> MethodConfig:
    """Make the configuration of a method of its parameters by name.

    Raises
    ------
    ArgumentError
        The method or a parameter is unknown, or a parameter is out of range.
    """
    chosen = find_method(method)
    for name in parameters:
        chosen.config.check_names([name], _owners(chosen, name))
    return chosen.config(**parameters)


def _owners(method: Method, name: str) -> str:
    """Behind which method's parameters one is looked for, and which others have it."""
    others = [one.name for one in all_methods().values() if name in one.config.names()]
    owners = f" (but of {', '.join(map(repr, others))})" if others else ""
    return f" of method {method.name!r}{owners}"
