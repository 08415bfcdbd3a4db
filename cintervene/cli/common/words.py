# SPDX-License-Identifier: Apache-2.0
"""The words that ``--forbid`` means."""

from __future__ import annotations

import errno

from cintervene.data import forbidden_words, read_words

OBEDIENCE = "obedience"


def read_forbidden(source: str) -> list[str]:
    """Return the package's list, or the words of a file.

    Raises
    ------
    ArgumentError
        The file is not UTF-8 or holds no words.
    OSError
        The file cannot be read.
    """
    if source == OBEDIENCE:
        return forbidden_words()
    try:
        return read_words(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            errno.ENOENT,
            f"--forbid: there is no list or file of words named {source}; give "
            f"{OBEDIENCE} or a UTF-8 file with one word a line",
        ) from error
