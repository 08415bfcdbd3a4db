# SPDX-License-Identifier: Apache-2.0
"""What the gradient attacks have in common: a suffix, searched for one request."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from cintervene.attacks.base import AttackCase, Request
from cintervene.attacks.objective import Layout, allowed_tokens, lay_out
from cintervene.attacks.templates import PREFILL
from cintervene.utils.lazy import lazy

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
    """

    model: nn.Module
    tokenizer: Any
    steps: int = 100
    length: int = 20
    target: str = PREFILL
    name: str = "suffix attack"

    # Fields that no test case depends on, or that are recorded elsewhere.
    NOT_OPTIONS: ClassVar[frozenset[str]] = frozenset(
        {"model", "tokenizer", "name", "batch"}
    )

    @property
    def options(self) -> dict[str, Any]:
        """The budget and the target."""
        names = [entry.name for entry in fields(self)]
        return {
            name: getattr(self, name) for name in names if name not in self.NOT_OPTIONS
        }

    @lazy
    def _allowed(self) -> Tensor:
        """Tokens that may stand in the suffix; the same for all requests."""
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        return allowed_tokens(self.tokenizer, len(embedding.weight))

    def _lay_out(self, request: str) -> Layout:
        return lay_out(self.tokenizer, request, self.length, self.target)

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
