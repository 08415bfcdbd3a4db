# SPDX-License-Identifier: Apache-2.0
"""Running an attack on many requests, with a file to resume from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cintervene.attacks.base import Attack, AttackCase, Request
from cintervene.errors import ArgumentError
from cintervene.models.precision import quick_products
from cintervene.utils.files import write_atomically
from cintervene.utils.json_ready import json_ready
from cintervene.utils.json_text import parse_json
from cintervene.utils.progress import Progress, Step, counting, silent
from cintervene.utils.ranks import deal_in_rounds, is_own, of_one, rank

__all__ = ["read_cases", "run_attack"]


@quick_products()
def run_attack(
    attack: Attack,
    requests: Sequence[Request],
    *,
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[AttackCase]:
    """Make the test cases of an attack for each request.

    Parameters
    ----------
    attack : Attack
    requests : sequence of Request
        No two with the same id.
    path : path, optional
        JSON file that the cases are stored in as they are made. If it exists, its cases
        are not made again, and a search that was interrupted is resumed. Where ranks
        share work, the first one keeps it, with its own searches.
    seed : int, default 0
    progress : Progress, optional

    Returns
    -------
    list of AttackCase
        In the order of the requests.

    Raises
    ------
    ArgumentError
        Two requests have the same id, or the file is of another attack, other options
        or another seed, or no file of test cases.
    OSError
        The file cannot be read or written.
    """
    ids = [request.id for request in requests]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise ArgumentError(
            f"requests: got the id {twice!r} twice, expected each once; give every "
            "request an id of its own"
        )
    record = _Record(None if path is None else Path(path), attack, seed)
    step = counting(progress, attack.name, attack.steps * len(requests))

    def make(request: Request) -> list[AttackCase]:
        return record.made(attack, request, seed, step)

    found = deal_in_rounds(attack.name, requests, make)
    for number, (request, cases) in enumerate(zip(requests, found, strict=True)):
        record.keep(request, cases)
        if not is_own(number):
            step(attack.steps)
    return [case for request in requests for case in record.cases[request.id]]


def read_cases(path: str | os.PathLike[str]) -> list[AttackCase]:
    """Read the test cases that `run_attack` stored.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        It holds no test cases.
    """
    stored = _cases(_load(Path(path)), Path(path))
    return [case for cases in stored.values() for case in cases]


class _Record:
    """The cases made so far, in memory and on the disk."""

    def __init__(self, path: Path | None, attack: Attack, seed: int) -> None:
        self.path = path if rank() == 0 else None
        about = {"attack": attack.name, "options": attack.options, "seed": seed}
        self.about = json.loads(json.dumps(json_ready(about)))
        self.cases: dict[str, list[AttackCase]] = {}
        self.states: dict[str, dict[str, Any]] = {}
        if path is not None:
            stored = of_one(path.name, lambda: _load(path) if path.exists() else None)
            if stored is not None:
                self._resume(stored, path)

    def _resume(self, stored: dict[str, Any], path: Path) -> None:
        for name, value in self.about.items():
            if stored.get(name) != value:
                raise ArgumentError(
                    f"path: {path} was made with {name} {stored.get(name)!r}, got "
                    f"{value!r}; give another file, or what it was made with"
                )
        self.states = stored["begun"]
        self.cases = _cases(stored, path)

    def made(
        self, attack: Attack, request: Request, seed: int, step: Step
    ) -> list[AttackCase]:
        """Make the cases of one request unless they are stored."""
        checkpoint = _RequestCheckpoint(self, request.id, step)
        cases = self._known(request)
        if cases is None:
            cases = list(attack.cases(request, seed, checkpoint))
        checkpoint.step(attack.steps - checkpoint.done)
        return cases

    def keep(self, request: Request, cases: list[AttackCase]) -> None:
        """Store the cases of one request unless they are."""
        if self._known(request) is None:
            self.cases[request.id] = cases
            self.states.pop(request.id, None)
            self.write()

    def _known(self, request: Request) -> list[AttackCase] | None:
        known = self.cases.get(request.id)
        if known is None or any(case.request != request.text for case in known):
            return None
        return known

    def write(self) -> None:
        if self.path is None:
            return
        content = {
            **self.about,
            "cases": {one: [asdict(c) for c in cs] for one, cs in self.cases.items()},
            "begun": self.states,
        }
        text = json.dumps(json_ready(content), indent=1, ensure_ascii=False)
        write_atomically(self.path, text.encode())


class _RequestCheckpoint:
    """The checkpoint of one request in the record of all."""

    def __init__(self, record: _Record, request: str, step: Step) -> None:
        self._record, self._request, self._step = record, request, step
        self.done = 0

    @property
    def state(self) -> dict[str, Any] | None:
        return self._record.states.get(self._request)

    def save(self, state: dict[str, Any]) -> None:
        self._record.states[self._request] = state
        self._record.write()

    def step(self, steps: int) -> None:
        self.done += steps
        if steps:  # A call without steps would reopen a phase that has ended.
            self._step(steps)


def _load(path: Path) -> dict[str, Any]:
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and isinstance(stored.get("begun"), dict):
            return stored
    except ValueError:
        pass
    raise _unreadable(path)


def _cases(stored: dict[str, Any], path: Path) -> dict[str, list[AttackCase]]:
    """The test cases of a file, by request."""
    try:
        found = {
            one: [_case(case) for case in cases]
            for one, cases in stored["cases"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path) from error
    texts = [
        (case.id, case.request, case.attack, case.prompt, case.prefill)
        for cases in found.values()
        for case in cases
    ]
    if not all(isinstance(text, str) for case in texts for text in case):
        raise _unreadable(path)
    return found


def _case(stored: dict[str, Any]) -> AttackCase:
    """A test case from JSON, which has lists in place of tuples."""
    turns = tuple((role, text) for role, text in stored.get("turns", ()))
    return AttackCase(**{**stored, "turns": turns})


def _unreadable(path: Path) -> ArgumentError:
    return ArgumentError(
        f"path: {path} holds no test cases, expected a file that `run_attack` wrote; "
        "give another name"
    )
