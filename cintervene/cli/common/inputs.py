# SPDX-License-Identifier: Apache-2.0
"""What flags name: a model on a device, and texts of files or of the package."""

from __future__ import annotations

import errno
from argparse import Namespace
from pathlib import Path
from typing import Any

from cintervene.cli.arguments.parameters import flag
from cintervene.cli.common.console import Console
from cintervene.cli.common.launched import own_device
from cintervene.data import (
    forbidden_words,
    harmful_prompts,
    read_requests,
    read_words,
)
from cintervene.data import read_texts as read_passages
from cintervene.errors import ArgumentError
from cintervene.models import load
from cintervene.prompts.template import chat_tokenizer
from cintervene.utils.homes import expanded

__all__ = ["load_as_asked", "load_named", "read_texts"]

# By parameter: the name of texts of the package's that it can be given by.
PACKAGED = {"forbid": "obedience", "harmful": "own"}


def load_named(arguments: Namespace, console: Console) -> tuple[Any, Any]:
    """Load the model that ``--model`` names, on ``--device``, and its tokenizer.

    Raises
    ------
    ArgumentError
        There is no such device here.
    ModelError
        There is no such model, or it cannot be used.
    """
    device = own_device(arguments.device)
    model, tokenizer = load_as_asked(arguments, arguments.model, console, device)
    options = getattr(arguments, "template_options", None)
    return model, tokenizer if options is None else chat_tokenizer(tokenizer, options)


def load_as_asked(
    arguments: Namespace, spec: str, console: Console, device: str = "cpu"
) -> tuple[Any, Any]:
    """Load a model in the type that ``--dtype`` names, from the hub with ``--hub``.

    Raises
    ------
    ModelError
        There is no such model, or it cannot be used.
    """
    return load(
        spec,
        hub=arguments.hub,
        dtype=arguments.model_dtype,
        device=device,
        progress=console,
    )


def read_texts(name: str, source: str) -> list[str]:
    """Return the texts for a parameter: of a file, or the package's by their name.

    A column of a table is named behind the file: ``table.csv:prompt``.

    Raises
    ------
    ArgumentError
        The file is not UTF-8, holds no texts, or not in a column that can be told.
    OSError
        The file cannot be read.
    """
    packaged = PACKAGED.get(name)
    if not source.strip():
        raise ArgumentError(f"{flag(name)}: got {source!r}; expected a file")
    if source == packaged:
        if name == "forbid":
            return forbidden_words()
        return [prompt.text for prompt in harmful_prompts("train")]
    read = {"forbid": read_words, "harmful": read_requests}.get(name, read_passages)
    source = str(expanded(source))
    path, _, column = source.rpartition(":")
    named = bool(path) and not Path(source).exists()
    try:
        return read(path, column) if named else read(source)
    except FileNotFoundError as error:
        other = f"{packaged} or " if packaged else ""
        raise FileNotFoundError(
            errno.ENOENT,
            f"{flag(name)}: there is no list or file named {source}; give {other}a "
            "UTF-8 file with one entry a line, or a table (.csv, .jsonl)",
        ) from error
