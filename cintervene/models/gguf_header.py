# SPDX-License-Identifier: Apache-2.0
"""The header of a GGUF file, walked through before a library believes its numbers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from cintervene.errors import ModelError
from cintervene.utils.files import check_regular

__all__ = ["check_gguf"]

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
# Bytes of values by the number of their kind; texts and arrays tell their length.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# A vocabulary has less, and each costs the library an object or several.
MOST_FIELDS, MOST_TENSORS, MOST_ELEMENTS = 1 << 16, 1 << 20, 1 << 24
MOST_AXES = 8
DEEPEST = 4
LONGEST_NAME = 1 << 16


def check_gguf(path: Path) -> None:
    """Check that counts, lengths and places in the header of a file are possible.

    Raises
    ------
    ModelError
        They are not, or it is no GGUF file.
    OSError
        The file cannot be read.
    """
    check_regular(path)
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: it begins with {magic!r}")
        try:
            _Header(stream, path.stat().st_size).check()
        except (ValueError, struct.error) as error:
            raise ModelError(
                f"{path} is damaged ({error}); get the .gguf file again"
            ) from error


class _Header:
    """The numbers of a header, one after the other."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size

    def check(self) -> None:
        version = self.number("<I")
        if version not in VERSIONS:
            raise ValueError(f"version {version}, expected 2 or 3")
        tensors = self.bounded(self.number("<Q"), MOST_TENSORS, "tensors")
        fields = self.bounded(self.number("<Q"), MOST_FIELDS, "fields")
        for _ in range(fields):
            self.name()
            self.value(self.number("<I"), DEEPEST)
        places = [self.tensor() for _ in range(tensors)]
        # As llama.cpp wants them: one behind the other.
        if tensors and (places[0] or places != sorted(set(places))):
            raise ValueError("tensors that do not lie one behind the other")

    def tensor(self) -> int:
        """Pass over what is said of a tensor, and return where its numbers are."""
        self.name()
        for _ in range(self.bounded(self.number("<I"), MOST_AXES, "axes of a tensor")):
            if not self.bounded(self.number("<Q"), 1 << 40, "elements of an axis"):
                raise ValueError("a tensor without elements")
        self.number("<I")
        return self.bounded(self.number("<Q"), self.size, "bytes before a tensor")

    def value(self, kind: int, depth: int) -> None:
        """Pass over a value."""
        if kind == STRING:
            self.skip(self.number("<Q"))
        elif kind == ARRAY and depth:
            inner = self.number("<I")
            count = self.bounded(self.number("<Q"), MOST_ELEMENTS, "elements")
            if inner in SIZES:
                self.skip(count * SIZES[inner])
            else:
                for _ in range(count):
                    self.value(inner, depth - 1)
        elif kind in SIZES:
            self.skip(SIZES[kind])
        else:
            raise ValueError(f"a value of kind {kind}")

    def name(self) -> None:
        length = self.bounded(self.number("<Q"), LONGEST_NAME, "bytes of a name")
        name = self.stream.read(length).decode()
        if not name.isprintable():
            raise ValueError(f"the name {name!r}")

    def number(self, form: str) -> int:
        (value,) = struct.unpack(form, self.stream.read(struct.calcsize(form)))
        return int(value)

    def bounded(self, value: int, most: int, what: str) -> int:
        if value > most:
            raise ValueError(f"{value} {what}")
        return value

    def skip(self, count: int) -> None:
        """Go on behind so many bytes, all of which the file has to have."""
        place = self.stream.tell()
        if count > self.size - place:
            raise ValueError(f"{count} bytes at {place} of {self.size}")
        self.stream.seek(place + count)
