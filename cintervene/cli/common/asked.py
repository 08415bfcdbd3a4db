# SPDX-License-Identifier: Apache-2.0
"""The requests of a study: of files, and the package's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from cintervene import data
from cintervene.attacks import Attack, DirectRequest, Request
from cintervene.cli.common.inputs import read_texts
from cintervene.data import Split
from cintervene.evaluate.benchmarks.csv_table import has_columns
from cintervene.evaluate.benchmarks.harmbench import read_behaviours
from cintervene.evaluate.benchmarks.xstest import read_prompts
from cintervene.evaluate.words.samples import spread
from cintervene.study import Suite

__all__ = ["sources_of", "suites_of"]

# Requests, and the topic of each by its id.
Asked: TypeAlias = tuple[list[Request], dict[str, str]]
# What is given in place of a file for the package's own requests.
OWN = Path("own")


def suites_of(arguments: Namespace, attacks: Sequence[Attack]) -> list[Suite]:
    """The requests that were given, and the package's own everyday ones."""
    suites, limit, split = [], arguments.limit, arguments.split
    if arguments.behaviours is not None:
        requests, topics = _behaviours(arguments.behaviours, split)
        suites.append(Suite("harmful", _limited(requests, limit), attacks, topics))
    if arguments.safe is not None:
        requests, topics = _safe(arguments.safe, split)
        direct = [DirectRequest()]
        suites.append(Suite("safe", _limited(requests, limit), direct, topics))
    requests, topics = _entries(
        "everyday", [(one.text, one.category) for one in data.benign_prompts(split)]
    )
    everyday = [DirectRequest()]
    suites.append(Suite("benign", _limited(requests, limit), everyday, topics))
    return suites


def sources_of(arguments: Namespace) -> dict[str, str]:
    """What the requests are, so that no study mixes two."""
    found = {} if arguments.split == "held_out" else {"split": arguments.split}
    for name in ("behaviours", "safe"):
        path: Path | None = getattr(arguments, name)
        if path is not None and _is_own(path):
            found[name] = f"the package's own, {arguments.split}"
        elif path is not None:
            found[f"sha256 of {name}"] = sha256(path.read_bytes()).hexdigest()
    return found


def _behaviours(path: Path, split: Split) -> Asked:
    """Harmful requests: our own, HarmBench's with their topics, or any other file's."""
    if _is_own(path):
        return _entries(
            "harmful",
            [
                *((one.text, one.category) for one in data.harmful_prompts(split)),
                *_languages(split, harmful=True),
            ],
        )
    if not has_columns(path, ("Behavior", "BehaviorID")):
        return _numbered(path)
    found = read_behaviours(path)
    requests = [Request(one.id, one.prompt) for one in found]
    return requests, {one.id: one.topic for one in found}


def _safe(path: Path, split: Split) -> Asked:
    """Harmless requests: our own, XSTest's with their types, or any other file's."""
    if _is_own(path):
        return _entries(
            "safe",
            [
                *((one.text, one.category) for one in data.borderline_prompts(split)),
                *_languages(split, harmful=False),
            ],
        )
    if not has_columns(path, ("prompt", "type")):
        return _numbered(path)
    found = [one for one in read_prompts(path) if one.safe]
    requests = [Request(one.id, one.text) for one in found]
    return requests, {one.id: one.kind for one in found}


def _is_own(path: Path) -> bool:
    return path == OWN and not path.exists()


def _languages(split: Split, *, harmful: bool) -> list[tuple[str, str]]:
    return [
        (one.text, f"in {one.language}")
        for one in data.language_requests(split, harmful=harmful)
    ]


def _numbered(path: Path) -> Asked:
    """Requests of a file that has no ids and no topics."""
    texts = enumerate(read_texts("harmful", str(path)), start=1)
    requests = [Request(str(number), text) for number, text in texts]
    return requests, {one.id: "all" for one in requests}


def _entries(name: str, found: Sequence[tuple[str, str]]) -> Asked:
    """Requests of the package by number, each a pair of text and topic."""
    named = {f"{name} {number}": one for number, one in enumerate(found, start=1)}
    requests = [Request(id, text) for id, (text, _) in named.items()]
    return requests, {id: topic for id, (_, topic) in named.items()}


def _limited(requests: Sequence[Request], most: int | None) -> list[Request]:
    """At most so many of a file, which is sorted by topic."""
    return spread(requests, len(requests) if most is None else most)
