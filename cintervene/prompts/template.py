# SPDX-License-Identifier: Apache-2.0
"""Chat templates: the modes that one has, and whether prompts survive it.

A template can have modes, such as with and without thinking before the answer. What is
learnt or measured in one of them says little about another, so each text is rendered in
one of all of them, unless somebody asks for one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.prompts.spelling import encode_text, text_tokenizer
from cintervene.prompts.template_modes import Options, options_of, variables
from cintervene.prompts.thinking import think_marks

__all__ = ["ChatTokenizer", "chat_tokenizer"]

# Characters that a template may write beside messages: what follows takes as long.
MOST_WRITTEN = 1_000_000
# Something that no template says by itself.
PROBE = "Which quokka ate seven purple umbrellas"
# Dates would make today's results differ from tomorrow's.
FIXED_DATE = {
    "%Y": "2026", "%y": "26", "%m": "01", "%B": "January", "%b": "Jan", "%d": "01",
    "%-d": "1", "%A": "Thursday", "%a": "Thu", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip
_DATES = "".join(f' | replace("{code}", "{text}")' for code, text in FIXED_DATE.items())
CLOCK = "{% macro strftime_now(format) %}{{ format" + _DATES + " }}{% endmacro %}"
# What a template is given by whoever renders a conversation.
GIVEN = frozenset({"messages", "add_generation_prompt", "strftime_now"})


class ChatTokenizer:
    """A tokenizer, and the modes of its chat template in which prompts are rendered.

    Everything else is asked of the tokenizer itself.

    Parameters
    ----------
    tokenizer
        A tokenizer of transformers, or a processor that has one.
    template_options : mapping, optional
        What to give the template, which makes its only mode; ``chat_template`` names
        one of several.
    every_mode : bool
        Without options, whether all modes that the template has are used, or the one
        that it has without any.

    Attributes
    ----------
    modes : tuple of mapping
        Options of each mode; the first is the template's own.

    Raises
    ------
    ArgumentError
        The template fails, does not know an option, or loses the prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        template_options: Mapping[str, Any] | None = None,
        every_mode: bool = True,
    ) -> None:
        self._tokenizer = text_tokenizer(tokenizer)
        options = dict(template_options or {})
        self._source = _source(tokenizer, options.pop("chat_template", None))
        self._parts = False
        self.modes: tuple[Options, ...] = (options,)
        self._check_options(options)
        self._check_survival(options)
        if self._source and every_mode and template_options is None:
            self.modes = tuple(options_of(self._source, self._probe))
            for mode in self.modes:
                self._check_survival(mode)

    def __getattr__(self, name: str) -> Any:
        if name == "_tokenizer":
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the tokenizer."""
        return self._tokenizer(*args, **kwargs)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def render(
        self,
        prompt: str,
        like: str | None = None,
        turns: Sequence[tuple[str, str]] = (),
    ) -> list[int]:
        """Token ids of a prompt in the mode whose turn it is: that of its text.

        Parameters
        ----------
        prompt : str
        like : str, optional
            The text whose turn it is instead: what the prompt was made of.
        turns : sequence of (role, content), optional
            What was said before it. A system prompt stands before the first message
            of the user where the template knows none.
        """
        text = prompt if like is None else like
        turn = zlib.crc32(text.encode("utf-8", "surrogatepass"))
        mode = self.modes[turn % len(self.modes)]
        if not turns:
            return self._ids(self._text(prompt, mode))
        try:
            return self._ids(self._text(prompt, mode, turns))
        except ArgumentError:
            if turns[0][0] != "system":
                raise
            first, *rest = [*turns[1:], ("user", prompt)]
            merged = [(first[0], f"{turns[0][1]}\n\n{first[1]}"), *rest]
            return self._ids(self._text(merged[-1][1], mode, merged[:-1]))

    def each_mode(self) -> dict[str, ChatTokenizer]:
        """By name: the same tokenizer with a single mode."""
        found = {}
        for mode in self.modes:
            one = copy(self)
            one.modes = (mode,)
            name = ", ".join(f"{key}={value}" for key, value in mode.items())
            found[name or "the template's own"] = one
        return found

    @property
    def has_thoughts(self) -> bool:
        """Whether there are several modes, or thoughts before answers."""
        return len(self.modes) > 1 or self.think_marks[1] in self._source

    @property
    def think_marks(self) -> tuple[str, str]:
        """What stands before and behind thoughts."""
        return think_marks(self._source)

    def check_fits(self, rows: int) -> None:
        """Refuse a template whose tokens an embedding of so many rows does not have.

        Raises
        ------
        ArgumentError
            Names the token.
        """
        for mode in self.modes:
            most = max(self._ids(self._text(PROBE, mode)))
            if most >= rows:
                raise ArgumentError(
                    f"tokenizer: its chat template writes token {most}, "
                    f"{self._tokenizer.decode([most])!r}, but the model has {rows} "
                    "tokens; give the tokenizer that the model was made with"
                )

    def ways(self, prompt: str) -> list[tuple[list[int], list[int]]]:
        """The ways in which an answer to a prompt may begin, no two alike.

        First that of `render`; then all other modes, a think block that was begun, and
        an empty one.

        Returns
        -------
        list of (prompt, begun)
            Token ids. What one way has behind the prompt of another, a think block for
            instance, is `begun`: part of the answer already.
        """
        texts = [self._text(prompt, mode) for mode in self.modes]
        opening, closing = self.think_marks
        thinking = next((t for t in texts if t.rstrip().endswith(opening)), "")
        begun = thinking or f"{texts[0]}{opening}\n"
        texts += [begun, f"{begun.rstrip()}\n\n{closing}\n\n"]
        rendered = [self.render(prompt), *map(self._ids, texts)]
        found = [list(ids) for ids in dict.fromkeys(map(tuple, rendered))]
        return [_divided(ids, found) for ids in found]

    def _text(
        self, prompt: str, options: Options, turns: Sequence[tuple[str, str]] = ()
    ) -> str:
        """A prompt in the chat template, with what was said before."""
        messages = [
            {
                "role": role,
                "content": [{"type": "text", "text": text}] if self._parts else text,
            }
            for role, text in (*turns, ("user", prompt))
        ]
        if not self._source:
            return "".join(f"{text}\n" for _, text in (*turns, ("user", prompt)))
        # Templates can raise anything, from their own messages to TypeError.
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                chat_template=_timeless(self._source), tokenize=False,
                add_generation_prompt=True, **options,
            )  # fmt: skip
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ArgumentError(
                "tokenizer: its chat template fails on a user's message "
                f"({reason!r:.200}); give another chat_template or template_options"
            ) from error
        written = len(text) - sum(len(said) for _, said in turns) - len(prompt)
        if written > MOST_WRITTEN:
            raise ArgumentError(
                f"tokenizer: its chat template writes {written} characters around a "
                f"message; expected {MOST_WRITTEN} at most. Give it another "
                "chat_template"
            )
        if _plain(prompt) not in _plain(text):
            raise ArgumentError(
                f"tokenizer: its chat template loses the prompt {prompt!r:.80}; "
                "expected one that writes message['content']. Give it another "
                "chat_template"
            )
        return str(text)

    def _ids(self, text: str) -> list[int]:
        """The tokens of a rendered text: once what begins, and nothing that ends it."""
        whole = {} if self._source else {"add_special_tokens": True}
        ids = encode_text(self._tokenizer, text, **whole)
        begin = getattr(self._tokenizer, "bos_token_id", None)
        while begin is not None and ids[:2] == [begin, begin]:
            ids = ids[1:]
        return ids

    def _probe(self, options: Options) -> str | None:
        """A rendered text, None where the template fails with these options."""
        try:
            return self._text(PROBE, options)
        except ArgumentError:
            return None

    def _check_options(self, options: Options) -> None:
        """Refuse options that the template does not look at."""
        known = variables(self._source) - GIVEN if self._source else set()
        for name in options:
            if name not in known:
                has = ", ".join(sorted(known)) if known else "none at all"
                raise ArgumentError(
                    f"template_options: got {name!r}, at which the tokenizer's chat "
                    f"template does not look; it has {has}"
                )

    def _check_survival(self, options: Options) -> None:
        """Refuse a template that loses the prompt; find out if it takes parts."""
        try:
            text = self._text(PROBE, options)
        except ArgumentError:
            self._parts = not self._parts
            text = self._probe(options) or ""
            if not text:
                self._parts = not self._parts
                raise
        found = re.findall(re.escape(PROBE), text, re.IGNORECASE)
        if len(found) != 1:
            raise ArgumentError(
                f"tokenizer: its chat template writes the prompt {len(found)} times; "
                "expected once. Give it another chat_template"
            )
        # The first and the last tokens may be others next to those of the template.
        own = encode_text(self._tokenizer, " " + found[0])[2:-2]
        ids = self._ids(text)
        if not any(ids[at : at + len(own)] == own for at in range(len(ids))):
            raise ArgumentError(
                "tokenizer: the tokens of a prompt are not among those of its chat "
                "template with the prompt in it; expected a tokenizer that writes the "
                "same text alike. Give the one that the model was made with"
            )


def chat_tokenizer(
    tokenizer: Any,
    template_options: Mapping[str, Any] | None = None,
    every_mode: bool = True,
) -> ChatTokenizer:
    """Return the tokenizer with the modes of its template; see `ChatTokenizer`."""
    if isinstance(tokenizer, ChatTokenizer) and template_options is None:
        return tokenizer
    return ChatTokenizer(tokenizer, template_options, every_mode)


def _source(tokenizer: Any, name: Any) -> str:
    """The text of the chat template, the one of this name if there are several.

    Raises
    ------
    ArgumentError
        Nobody says which of them, or they are no templates.
    """
    found = getattr(tokenizer, "chat_template", None)
    found = found or getattr(text_tokenizer(tokenizer), "chat_template", None)
    if isinstance(found, Sequence) and not isinstance(found, str):
        try:
            found = {one["name"]: one["template"] for one in found}
        except (KeyError, TypeError) as error:
            raise ArgumentError(
                f"tokenizer: its chat templates are {found!r:.80}; expected a text, or "
                "a list of objects with name and template"
            ) from error
    if not isinstance(found, Mapping):
        if name is not None:
            raise ArgumentError(
                f"template_options: got the chat_template {name!r:.80}, but the "
                "tokenizer has not several of them; leave it out"
            )
        return str(found or "")
    chosen = name or ("default" if len(found) > 1 else next(iter(found), ""))
    if chosen not in found:
        raise ArgumentError(
            f"tokenizer: got chat templates named {', '.join(map(repr, found))} and "
            f"none named {chosen!r}; choose one with template_options="
            f'{{"chat_template": {next(iter(found), "")!r}}}'
        )
    return str(found[chosen])


def _divided(
    ids: list[int], others: Sequence[list[int]]
) -> tuple[list[int], list[int]]:
    """Tokens behind the shortest of others that they begin with."""
    start = min(len(one) for one in others if ids[: len(one)] == one)
    return ids[:start], ids[start:]


def _timeless(source: str) -> str:
    """A template for which it is always the same day."""
    return CLOCK + source if "strftime_now" in source else source


def _plain(text: str) -> str:
    """A text as templates may change it: in case, and in white space."""
    return " ".join(text.casefold().split())
