# SPDX-License-Identifier: Apache-2.0
"""Running an attack on many requests, with a file to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cintervene.attacks.base import (
    Attack,
    Case,
    Request,
)
from cintervene.errors import ArgumentError
from cintervene.models.precision import quick_products
from cintervene.utils.files import write_atomically
from cintervene.utils.json_ready import json_ready
from cintervene.utils.progress import (
    Progress,
    counting,
    silent,
)

__all__ = ["read_cases", "run_attack"]


@quick_products()
def run_attack(
    attack: Attack,
    requests: Sequence[Request],
    *,
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Case]:
    """Make the test cases of an attack for each request.

    Parameters
    ----------
    attack : Attack
    requests : sequence of Request
        With ids of their own.
    path : path, optional
        JSON file that the cases are stored in as they are made. If it is there, what
        it holds is not made again, and what was begun is gone on with.
    seed : int, default 0
    progress : Progress, optional

    Returns
    -------
    list of Case
        In the order of the requests.

    Raises
    ------
    ArgumentError
        Two requests have one id, or the file is of another attack, other options or
        another seed, or is no such file.
    OSError
        The file cannot be read or written.
    """
    ids = [request.id for request in requests]
    if len(set(ids)) < len(ids):
        raise ArgumentError("requests: got an id twice; give each request its own")
    record = _Record(None if path is None else Path(path), attack, seed)
    step = counting(progress, attack.name, attack.steps * len(requests))
    for request in requests:
        record.make(attack, request, seed, step)
    return [case for request in requests for case in record.cases[request.id]]


def read_cases(path: str | os.PathLike[str]) -> list[Case]:
    """Read the test cases that `run_attack` stored.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        It holds no test cases.
    """
    stored = _load(Path(path))
    return [Case(**case) for cases in stored["cases"].values() for case in cases]


class _Record:
    """What has been made so far, in memory and on the disk."""

    def __init__(self, path: Path | None, attack: Attack, seed: int) -> None:
        self.path = path
        about = {"attack": attack.name, "options": attack.options, "seed": seed}
        self.about = json.loads(json.dumps(json_ready(about)))
        self.cases: dict[str, list[Case]] = {}
        self.begun: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._take_up(_load(path), path)

    def _take_up(self, stored: dict[str, Any], path: Path) -> None:
        for name, mine in self.about.items():
            if stored.get(name) != mine:
                raise ArgumentError(
                    f"path: {path} was made with {name} {stored.get(name)!r}, got "
                    f"{mine!r}; give another file, or what it was made with"
                )
        self.begun = stored["begun"]
        for one, cases in stored["cases"].items():
            self.cases[one] = [Case(**case) for case in cases]

    def make(
        self, attack: Attack, request: Request, seed: int, step: Callable[[int], None]
    ) -> None:
        """Make the cases of one request unless they are there."""
        notes = _RequestNotes(self, request.id, step)
        made = self.cases.get(request.id)
        if made is None or any(case.request != request.text for case in made):
            self.cases[request.id] = list(attack.cases(request, seed, notes))
            self.begun.pop(request.id, None)
            self.write()
        notes.step(attack.steps - notes.done)

    def write(self) -> None:
        if self.path is None:
            return
        content = {
            **self.about,
            "cases": {one: [asdict(c) for c in cs] for one, cs in self.cases.items()},
            "begun": self.begun,
        }
        text = json.dumps(json_ready(content), indent=1, ensure_ascii=False)
        write_atomically(self.path, text.encode())


class _RequestNotes:
    """The notes of one request in the record of all."""

    def __init__(
        self, record: _Record, request: str, step: Callable[[int], None]
    ) -> None:
        self._record, self._request, self._step = record, request, step
        self.done = 0

    @property
    def state(self) -> dict[str, Any] | None:
        return self._record.begun.get(self._request)

    def save(self, state: dict[str, Any]) -> None:
        self._record.begun[self._request] = state
        self._record.write()

    def step(self, steps: int) -> None:
        self.done += steps
        if steps:  # Or a phase that has ended would begin anew.
            self._step(steps)


def _load(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and {"cases", "begun"} <= stored.keys():
            return stored
    except ValueError:
        pass
    raise ArgumentError(f"path: {path} holds no test cases; give another name")
