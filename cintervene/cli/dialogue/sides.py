# SPDX-License-Identifier: Apache-2.0
"""A model before and after a change: two conversations with one loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.beside import Beside
from cintervene.intervention.intervention import Intervention
from cintervene.prompts.chat import Sampler, answer_text, chat_for, stream
from cintervene.prompts.thinking import after_thinking

__all__ = ["Answer", "Side", "Sides"]

# What decoders write for bytes that are no character yet.
UNFINISHED = "\ufffd"


class Answer:
    """An answer that is being written.

    Attributes
    ----------
    tokens : list of int
        So far.
    done : bool
    """

    def __init__(self, tokenizer: Any, stream: Iterator[int]) -> None:
        self.tokens: list[int] = []
        self.done = False
        self._tokenizer, self._stream = tokenizer, stream

    def step(self) -> None:
        """Write one token more, or note that there is none."""
        token = next(self._stream, None)
        if token is None:
            self.done = True
        else:
            self.tokens.append(token)

    def stop(self) -> None:
        """Leave it as it is."""
        self.done = True

    @property
    def text(self) -> str:
        """What can be read so far, which only grows; marks of thoughts are shown."""
        text = str(
            self._tokenizer.decode(
                self.tokens,
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )
        ).lstrip()
        return text if self.done else text.rstrip(UNFINISHED)


class Side:
    """One of the two, and what was said to it.

    Attributes
    ----------
    name : str
        "before", "after", or "" for a model without a change.
    turns : list of (role, content)
        Of its conversation.
    """

    def __init__(self, name: str, forward: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.forward = forward
        self.turns: list[tuple[str, str]] = []


class Sides:
    """A model with its conversations, before and after a change if there is one.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    intervention : Intervention, optional
    system : str, optional
        The system prompt.
    max_new_tokens : int
    temperature : float
        0 for the likeliest tokens.
    seed : int
        Each answer is drawn anew from it.
    template_options : mapping, optional
        What the chat template is given.

    Attributes
    ----------
    strength : float
        How many times the change is made.
    all : list of Side

    Raises
    ------
    ArgumentError
        The chat template cannot be used.
    InterventionError
        The intervention cannot be applied to the model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        intervention: Intervention | None = None,
        *,
        system: str | None = None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        template_options: Any = None,
    ) -> None:
        self._model = model
        self._chat = chat_for(model, tokenizer, template_options, every_mode=False)
        self._intervention = intervention
        self._system = system
        self._temperature, self._seed = temperature, seed
        self.max_new_tokens = max_new_tokens
        self.strength = 1.0
        if intervention is None:
            self.all = [Side("")]
        else:
            after = Beside(model, intervention)
            self.all = [Side("before"), Side("after", after)]

    def set_strength(self, factor: float) -> None:
        """Make the change so many times, from the next answer on.

        Raises
        ------
        ArgumentError
            There is no change, or the factor is no finite number.
        InterventionError
            Nothing would change, or a weight would be out of range.
        """
        if self._intervention is None:
            raise ArgumentError(
                "strength: there is no change to make stronger; give --intervention"
            )
        scaled = self._intervention if factor == 1 else self._intervention.scale(factor)
        self.all[1].forward = None if factor == 0 else Beside(self._model, scaled)
        self.strength = factor

    def forget(self) -> None:
        """Begin the conversations anew."""
        for side in self.all:
            side.turns.clear()

    def ask(self, side: Side, question: str) -> Answer:
        """Begin an answer of a side.

        Raises
        ------
        ArgumentError
            The conversation has become too long, or the template fails on it.
        """
        before = [] if self._system is None else [("system", self._system)]
        prompt = self._chat.render(question, turns=[*before, *side.turns])
        self._check_room(len(prompt))
        choose = Sampler(self._temperature, self._seed) if self._temperature else None
        tokens = stream(
            self._model, self._chat, prompt, self.max_new_tokens,
            forward=side.forward, choose=choose,
        )  # fmt: skip
        return Answer(self._chat, tokens)

    def keep(self, side: Side, question: str, answer: Answer) -> str:
        """Add what was said to a side's conversation; thoughts are no part of it."""
        text = answer_text(self._chat, answer.tokens).strip()
        said = [("user", question), ("assistant", after_thinking(text).strip())]
        side.turns.extend(said)
        return text

    def _check_room(self, length: int) -> None:
        config: Any = self._model.config
        most = getattr(config.get_text_config(), "max_position_embeddings", None)
        if isinstance(most, int) and length + self.max_new_tokens > most:
            raise ArgumentError(
                f"conversation: it has become {length} tokens long, and the model has "
                f"room for {most} with the {self.max_new_tokens} of an answer; begin "
                "anew with /reset, or take fewer with --max-new-tokens"
            )
