# SPDX-License-Identifier: Apache-2.0
"""Text files as people have them, read as UTF-8 or refused by what they are."""

from __future__ import annotations

from pathlib import Path

from cintervene.errors import ArgumentError

__all__ = ["decoded", "lines_of"]

UTF8_BOM = b"\xef\xbb\xbf"
# By its first bytes: what a file is that is no UTF-8 text.
OTHERS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "Parquet",
}


def decoded(path: Path, what: str = "file") -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Parameters
    ----------
    path : Path
    what : str
        What the message tells to save.

    Raises
    ------
    ArgumentError
        It is something else; the message says where.
    OSError
        It cannot be read.
    """
    content = path.read_bytes()
    kind = next((name for mark, name in OTHERS.items() if content.startswith(mark)), "")
    try:
        text = content.removeprefix(UTF8_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].replace(b"\r\n", b"\n")
        lines = before.replace(b"\r", b"\n").split(b"\n")
        but = f" (the file is {kind})" if kind else ""
        raise ArgumentError(
            f"{path}, line {len(lines)}: byte 0x{error.object[error.start]:02x} at "
            f"column {len(lines[-1]) + 1} is not UTF-8{but}; save the {what} as UTF-8"
        ) from error
    if kind:
        raise ArgumentError(
            f"{path}: is {kind}, not text; save the {what} as UTF-8 text, CSV or JSON "
            "lines"
        )
    return text


def lines_of(text: str) -> list[str]:
    """Lines of a text file of any system; other characters that part lines do not."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
