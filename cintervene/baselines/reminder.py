# SPDX-License-Identifier: Apache-2.0
"""Self-Reminder: remind the model of its duties before and after the user's message.

Source: Y. Xie et al., "Defending ChatGPT against jailbreak attack via self-reminders",
Nature Machine Intelligence 5 (2023). The wording here was written for this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cintervene.baselines.answering import Answerer, Generation

__all__ = ["SelfReminder"]


@dataclass(frozen=True, eq=False)
class SelfReminder:
    """Another answerer, whose prompts are put between two reminders.

    Attributes
    ----------
    inner : Answerer
    before, after : str
        Added as they are, so they should contain the line breaks.
    """

    inner: Answerer
    before: str = (
        "You are a responsible assistant. You never help with anything that harms "
        "people, and decline such requests. Answer the following in that spirit.\n\n"
    )
    after: str = (
        "\n\nRemember to be responsible: if this would harm anybody, decline to help."
    )

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`."""
        reminded = [self.before + prompt + self.after for prompt in prompts]
        return self.inner.answer(reminded, generation, seed)
