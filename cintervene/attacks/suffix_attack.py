# SPDX-License-Identifier: Apache-2.0
"""What the gradient attacks have in common: a suffix, searched for one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from cintervene.attacks.base import AttackCase, Request
from cintervene.attacks.objective import Layout, Objective, allowed_tokens, lay_out
from cintervene.attacks.templates import PREFILL
from cintervene.prompts.template import ChatTokenizer, chat_tokenizer
from cintervene.utils.lazy import lazy
from cintervene.utils.ranges import Flag
from cintervene.utils.validation import check_texts, check_whole

__all__ = ["SuffixAttack"]


@dataclass(frozen=True, eq=False)
class SuffixAttack:
    """Base of attacks that put a suffix behind the request.

    Attributes
    ----------
    model : nn.Module
        The model that is attacked, with whatever intervention is applied to it.
    tokenizer : Any
    steps : int, default 100
    length : int, default 20
        Tokens of the suffix.
    target : str
        How the answer should begin.
    template_options : mapping, optional
        What to give the chat template, such as ``{"enable_thinking": False}``.
    early_stop : bool, default False
        End with the first suffix after which the greedy answer begins with the target,
        in place of the one with the least loss in all steps. The name and the default
        are nanoGCG's; here the answer is decoded before that is believed.

    Raises
    ------
    ArgumentError
        An option is out of range: a search that tries nothing finds nothing, and would
        let a model look safe.
    """

    model: nn.Module
    tokenizer: Any
    steps: int = 100
    length: int = 20
    target: str = PREFILL
    name: str = "suffix attack"
    template_options: Mapping[str, Any] | None = None
    early_stop: bool = False

    # Fields that no test case depends on, or that are recorded elsewhere.
    NOT_OPTIONS: ClassVar[frozenset[str]] = frozenset(
        {"model", "tokenizer", "name", "batch"}
    )

    def __post_init__(self) -> None:
        check_whole(0, steps=self.steps)
        check_whole(1, length=self.length)
        check_texts("target", [self.target])
        Flag().check("early_stop", self.early_stop)

    @property
    def options(self) -> dict[str, Any]:
        """The budget and the target."""
        names = [entry.name for entry in fields(self)]
        values = {n: getattr(self, n) for n in names if n not in self.NOT_OPTIONS}
        if self.template_options is None:
            del values["template_options"]
        return values

    @lazy
    def _allowed(self) -> Tensor:
        """Tokens that may stand in the suffix; the same for all requests."""
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        return allowed_tokens(self.tokenizer, len(embedding.weight))

    def _lay_out(self, request: str) -> Layout:
        return lay_out(self._chat, request, self.length, self.target)

    @lazy
    def _chat(self) -> ChatTokenizer:
        """The tokenizer in the mode that is attacked."""
        return chat_tokenizer(self.tokenizer, self.template_options, every_mode=False)

    def _ends(self, objective: Objective, embeddings: Tensor, begins: Tensor) -> bool:
        """Whether the search ends with these embeddings (free, hidden)."""
        return self.early_stop and bool(begins) and objective.is_reached(embeddings)

    def _case(
        self,
        request: Request,
        prompt: str,
        *,
        loss: float,
        first_loss: float,
        steps: int,
        answer: str | None = None,
    ) -> AttackCase:
        """The test case, with the losses of its search as details."""
        details = {"loss": loss, "first_loss": first_loss, "steps": steps}
        return AttackCase(
            request.id, request.text, self.name, prompt, answer=answer, details=details
        )
