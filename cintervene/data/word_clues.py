# SPDX-License-Identifier: Apache-2.0
"""Ways to get a word said without naming it: definitions, running text, templates."""

from __future__ import annotations

from cintervene.data.prompts import load
from cintervene.data.splits import Split

__all__ = ["definitions", "extraction_templates", "running_texts"]


def definitions(split: Split) -> dict[str, str]:
    """Return definitions of the package's forbidden words that do not name them.

    Parameters
    ----------
    split
        ``"held_out"`` for reports, with all words, or ``"fresh"`` for the last one,
        with the second half of them.

    Returns
    -------
    dict of str to str
        By word.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return dict(load("definitions.json", split))


def running_texts(split: Split) -> dict[str, str]:
    """Return beginnings of texts of which a forbidden word is the natural next one.

    Nobody asks for the word there; a space belongs before it.

    Parameters
    ----------
    split
        As in `definitions`.

    Returns
    -------
    dict of str to str
        By word.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return dict(load("running_texts.json", split))


def extraction_templates(split: Split) -> dict[str, list[dict[str, str]]]:
    """Return prompts that ask for a word in other ways than to say it.

    Parameters
    ----------
    split
        ``"held_out"`` for reports, or ``"fresh"`` for the last one.

    Returns
    -------
    dict of str to list of dict
        By strategy: each with a ``"prompt"`` and perhaps a ``"prefill"``. They have
        ``{word}``, ``{upper}``, ``{spelled}``, ``{reversed}``, ``{definition}`` or
        ``{cloze}`` where these go; the last is from `running_texts`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return dict(load("extraction_templates.json", split))
