# SPDX-License-Identifier: Apache-2.0
"""The parameters of the guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from cintervene.errors import ArgumentError
from cintervene.utils.parameters import Described, parameter
from cintervene.utils.ranges import Choice, Flag, Optional, Scale, Texts

__all__ = ["GuardConfig"]

Direction = Literal["contrast", "unembedding"]


@dataclass(frozen=True, kw_only=True)
class GuardConfig(Described):
    """The guard: PCR solved for the sequence at hand, while a model generates.

    Attributes
    ----------
    forbid : sequence of str
        Words, each forbidden in lower case, capitalised and upper case, however it is
        cut into tokens.
    concepts : {"contrast", "unembedding"}
        Direction that stands for a token: that which raises its logit, less the mean
        one of what is said on benign text or not.
    strength : float
        Nats s: no token that says a word may have a probability above exp(-s). A token
        in the middle of a word may have somewhat more while few letters are said.
    every_token : bool
        Whether to solve again wherever a later token needs it. False is the paper's
        form: solved once for the prompt, whose change acts on the rest of the answer.
    ridge : float
        Of `Preserve`, in whose norm the prompt's change is least; large ones let it act
        on more of what follows, wanted or not.
    preserve : sequence of str
        Texts whose processing is to stay as it is, besides the package's own.

    References
    ----------
    arXiv 2510.03567, PCR at test time; docs/methods/guard.md.
    """

    subject: ClassVar[str] = "parameter of the guard"

    forbid: Sequence[str] | None = parameter(
        Optional(Texts(metavar="WORDS")), None, "words not to say"
    )
    concepts: Direction = parameter(
        Choice(names=get_args(Direction)), "contrast", "what stands for a token"
    )
    strength: float = parameter(
        Scale(metavar="NATS"), 8.0, "how unlikely tokens that say a word shall be"
    )
    every_token: bool = parameter(
        Flag(), True, "solve again wherever a later token needs it"
    )
    ridge: float = parameter(
        Scale(), 1e-3, "of the norm's inputs, relative to the mean squared input"
    )
    preserve: Sequence[str] = parameter(
        Texts(), (), "a UTF-8 file with a text on each line that is to be left alone",
        private=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forbid is None:
            raise ArgumentError(
                'forbid: got none; expected words not to say, e.g. forbid=["bomb"]'
            )
