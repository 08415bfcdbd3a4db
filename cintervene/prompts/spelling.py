# SPDX-License-Identifier: Apache-2.0
"""The token sequences that a word can be written with."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import Any

from cintervene.data import caseless, normal_word, unique_words
from cintervene.errors import ArgumentError

__all__ = [
    "before_last_part",
    "check_spellable",
    "distinctive",
    "distinctiveness",
    "encode_text",
    "first_tokens",
    "spell",
    "surface_forms",
    "text_tokenizer",
    "words_to_forbid",
]


def surface_forms(word: str) -> tuple[str, ...]:
    """Return the word as given, lower-case, capitalised and upper-case, each once.

    The order is that of frequency in running text: lower-case first. All are composed
    (NFC), which changes of case may undo.
    """
    # Some letters are capitalised otherwise than they are written in capitals.
    capitalised = word[:1].title() + word[1:].lower()
    forms = (word.lower(), capitalised, word.upper(), word)
    return tuple(dict.fromkeys(unicodedata.normalize("NFC", form) for form in forms))


def encode_text(
    tokenizer: Any, text: str, add_special_tokens: bool = False
) -> list[int]:
    """Token ids of `text` as it stands, never with an end that it does not have.

    Parameters
    ----------
    tokenizer
    text : str
    add_special_tokens : bool
        Whether it begins as a text does.
    """
    if not text:
        return []
    ids = list(tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
    end = getattr(tokenizer, "eos_token_id", None)
    # Some tokenizers add it to everything.
    if end is not None and ids[-1:] == [end] and not _ends(tokenizer, text):
        ids = ids[:-1]
    return ids


def _ends(tokenizer: Any, text: str) -> bool:
    """Whether a text is written with the token that ends texts."""
    return text.endswith(getattr(tokenizer, "eos_token", None) or "\0")


def text_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer of a processor, which sees to images too; others as they are.

    Raises
    ------
    ArgumentError
        It is no tokenizer: a name, a model, nothing.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    if callable(getattr(inner, "decode", None)):
        return inner
    if not callable(getattr(tokenizer, "decode", None)):
        raise ArgumentError(
            f"tokenizer: got {type(tokenizer).__name__}, which cannot decode; expected "
            "the tokenizer of the model, as cintervene.models.load returns it"
        )
    return tokenizer


def spell(tokenizer: Any, before: str, word: str) -> tuple[list[int], list[int]]:
    """Tokenise ``before + word`` and split it where the word begins.

    Tokenizers glue a space to the word behind it, so the two cannot be encoded apart.
    A token that holds the end of `before` and the beginning of the word counts as the
    word's, unless it is white space.

    Returns
    -------
    context, tokens : list of int
    """
    alone = encode_text(tokenizer, before)
    whole = encode_text(tokenizer, before + word)
    shared = 0
    while shared < min(len(alone), len(whole)) and alone[shared] == whole[shared]:
        shared += 1
    # A word must keep a token of its own even where the encoding of `before` ends in
    # the same one ("ha" + "ha").
    shared = min(shared, len(whole) - 1)
    while shared < len(whole) - 1 and not tokenizer.decode([whole[shared]]).strip():
        shared += 1
    return whole[:shared], whole[shared:]


def first_tokens(tokenizer: Any, before: str, word: str) -> dict[int, float]:
    """First tokens of the word after `before`, in all surface forms.

    Where `before` does not end in white space, the word may follow with a space of
    its own, and both count. Forms that change how `before` itself is encoded are
    left out: they begin at another position.

    Returns
    -------
    dict of int to float
        How distinctive each token is; see `distinctive`.
    """
    context, _ = spell(tokenizer, before, word.lower())
    gaps = [""] if before[-1:].isspace() else ["", " "]
    first: dict[int, float] = {}
    for form in surface_forms(word):
        for gap in gaps:
            context_of_form, tokens = spell(tokenizer, before, gap + form)
            if context_of_form == context:
                first[tokens[0]] = distinctive(tokenizer, tokens[0], word)
    return dict(sorted(first.items()))


def distinctive(tokenizer: Any, token: int, word: str) -> float:
    """How much a token says about which word it is part of, from 0 to 1.

    1 for the whole word and for pieces of four letters or more; shorter pieces are
    part of ever more words.
    """
    return distinctiveness(len(tokenizer.decode([token]).strip()), word)


def distinctiveness(letters: int, word: str) -> float:
    """The same, of so many letters of the word."""
    return 1.0 if letters >= len(word) else min(letters / 4, 1.0) ** 2


def before_last_part(tokenizer: Any, tokens: Sequence[int], phrase: str) -> int:
    """How many of a phrase's tokens come before its last part.

    0 for a word, and where a token holds the end of one part and the beginning of the
    next.

    Parameters
    ----------
    tokenizer
    tokens : sequence of int
        Of the phrase in any surface form.
    phrase : str
        Its parts have white space between them.
    """
    parts = caseless(phrase).split()
    if len(parts) == 1:
        return 0
    for count in range(1, len(tokens)):
        said = caseless(tokenizer.decode(list(tokens[:count]))).split()
        # The first token may begin with what comes before the phrase, such as a quote.
        if len(said) == len(parts) - 1 and said[-1].endswith(parts[-2]):
            return count
    return 0


def check_spellable(tokenizer: Any, words: Sequence[str]) -> None:
    """Refuse words that the tokenizer cannot write and read back.

    Raises
    ------
    ArgumentError
        There are no words; a word is blank, holds a token of the chat template, or
        does not survive the tokenizer.
    """
    if not words:
        raise ArgumentError("forbid: got no words; give at least one")
    for word in words:
        normal = normal_word("forbid", word)
        token = _template_token(tokenizer, normal)
        if token:
            raise ArgumentError(
                f"forbid: {word!r} holds {token!r}, a special token, with which chat "
                "templates and the ends of answers are written; remove it"
            )
        ids = encode_text(tokenizer, normal)
        back = tokenizer.decode(ids) if ids else ""
        unknown = getattr(tokenizer, "unk_token_id", None)
        if back.strip() != normal or (unknown is not None and unknown in ids):
            raise ArgumentError(
                f"forbid: the tokenizer cannot spell {word!r} (it reads back "
                f"{back!r}); remove the word or write it in another script"
            )


def _template_token(tokenizer: Any, word: str) -> str:
    """A token in any form of a word that stands for no text of its own, or nothing."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = set(getattr(tokenizer, "all_special_ids", ()))
    special -= {getattr(tokenizer, "unk_token_id", None)}
    template = str(getattr(tokenizer, "chat_template", None) or "")
    forms = (encode_text(tokenizer, form) for form in surface_forms(word))
    for token in chain.from_iterable(forms):
        text = str(added.get(token, ""))
        bare = text.strip()
        marks = not bare.isalnum() and bare in template
        if token in special or (bare and (added[token].special or marks)):
            return text or str(tokenizer.decode([token]))
    return ""


def words_to_forbid(tokenizer: Any, forbid: Sequence[str]) -> list[str]:
    """Check the argument `forbid`, and return its words.

    They are in the form of `cintervene.data.normal_word`; of those that differ only in
    case the first is kept.

    Raises
    ------
    ArgumentError
        It is a single string, or as `check_spellable`.
    """
    if isinstance(forbid, str):
        raise ArgumentError(
            f"forbid: got the string {forbid!r}; expected a list of words. "
            f"Write [{forbid!r}]"
        )
    check_spellable(text_tokenizer(tokenizer), forbid)
    return unique_words(normal_word("forbid", word) for word in forbid)
