# SPDX-License-Identifier: Apache-2.0
"""An attack on the requests of a defence while that is being found.

Source: arXiv 2510.03567, ARR; docs/methods/arr.md (4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cintervene.prompts.chat import render
from cintervene.prompts.refusal_examples import TargetExample

__all__ = ["Adversary", "PromptAttack"]


class PromptAttack(Protocol):
    """Looks for words behind a request; `attacks.RelaxedPGD` is one."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything that its prompts depend on beside request and model; JSON."""

    def suffixed(self, request: str, answer: Sequence[int], seed: int) -> str:
        """The request with words behind it that make the model's answer likelier.

        Parameters
        ----------
        request : str
        answer : sequence of int
            Its tokens.
        seed : int
        """


@dataclass(frozen=True, eq=False)
class Adversary:
    """Makes harder examples of the examples about some requests.

    Attributes
    ----------
    attack : PromptAttack
    tokenizer
    requests : sequence of str
    every : int
        Steps of the defence from one attack to the next.
    count : int
        Requests that are attacked each time, the least defended ones.
    """

    attack: PromptAttack
    tokenizer: Any
    requests: Sequence[str]
    every: int
    count: int

    def harder(self, request: int, example: TargetExample, seed: int) -> TargetExample:
        """The example with the words that an attack on the present model finds.

        Parameters
        ----------
        request : int
            Which of the requests the example is about.
        """
        answer = example.ids[example.target_start :]
        asked = self.requests[request]
        text = self.attack.suffixed(asked, answer, seed)
        prompt = render(self.tokenizer, text, like=asked)
        return TargetExample(
            (*prompt, *answer), example.prefix_length, len(prompt), example.target_sets
        )
