# SPDX-License-Identifier: Apache-2.0
"""``cintervene evaluate`` with defences and attacks: a study that can go on."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cintervene import data
from cintervene.attacks import Attack, DirectRequest, Request
from cintervene.baselines import Generation
from cintervene.cli.common.budgets import evaluation_size
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.contenders import named_attacks, named_defences
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named, read_texts
from cintervene.cli.common.judges import named_judge
from cintervene.errors import ArgumentError
from cintervene.evaluate import measure
from cintervene.evaluate.benchmarks.csv_table import has_columns
from cintervene.evaluate.benchmarks.harmbench import read_behaviours
from cintervene.evaluate.benchmarks.xstest import read_prompts
from cintervene.evaluate.words.samples import spread
from cintervene.intervention.intervention import Intervention
from cintervene.study import (
    Journal,
    Suite,
    Trial,
    run_study,
    sorter,
    study_content,
    write_study,
)
from cintervene.study.report.peers import read_peers
from cintervene.study.report.sections import Table, sections
from cintervene.utils.files import write_atomically
from cintervene.utils.json_text import parse_json

# Requests, and the topic of each by its id.
Asked = tuple[list[Request], dict[str, str]]


def run(arguments: Namespace, console: Console) -> Exit:
    """Run what is not recorded yet, and write the report of everything."""
    if arguments.out is None:
        raise ArgumentError("--out: got none; a study needs a directory to be kept in")
    words = None if arguments.forbid is None else read_texts("forbid", arguments.forbid)
    peers = None if arguments.peers is None else read_peers(arguments.peers)
    with Journal(arguments.out) as journal:
        journal.agree(_sources(arguments))
        model, tokenizer = load_named(arguments, console)
        attacks = named_attacks(arguments.attacks, model, tokenizer)
        suites = _suites(arguments, attacks)
        defences = named_defences(
            arguments.defence, model, tokenizer, words, arguments.out, console,
            arguments.budget or "default",
        )  # fmt: skip
        generation = Generation(max_new_tokens=arguments.tokens)
        judge, about = named_judge(arguments, console)
        journal.agree(about)
        trial = Trial(sorter(model, tokenizer, judge), generation, arguments.seed)
        cases = run_study(journal, defences, suites, trial, progress=console)
        changed = {
            one.name: one.intervention
            for one in defences
            if one.intervention is not None and one.answerer is one.clocked
        }
        measured = {
            name: _measured(arguments, name, one, model, tokenizer, words, console)
            for name, one in changed.items()
        }
        content = study_content(
            arguments.model, journal.settings, cases, changed, measured, peers
        )
        files = write_study(arguments.out, content, cases)
    console.close()
    if arguments.json:
        names = [str(file) for file in files]
        print_json({"command": "evaluate", "files": names, "study": content})
    else:
        say("\n".join(_lines(content)))
        say(f"\n{files[0]} has all of it")
    return Exit.DONE


def _suites(arguments: Namespace, attacks: Sequence[Attack]) -> list[Suite]:
    """The requests that were given, and the package's own everyday ones."""
    suites, limit = [], arguments.limit
    if arguments.behaviours is not None:
        requests, topics = _behaviours(arguments.behaviours)
        suites.append(Suite("harmful", _limited(requests, limit), attacks, topics))
    if arguments.safe is not None:
        requests, topics = _safe(arguments.safe)
        direct = [DirectRequest()]
        suites.append(Suite("safe", _limited(requests, limit), direct, topics))
    everyday = {
        f"everyday {number}": one
        for number, one in enumerate(data.benign_prompts("held_out"), start=1)
    }
    suites.append(
        Suite(
            "benign",
            _limited([Request(id, one.text) for id, one in everyday.items()], limit),
            [DirectRequest()],
            {id: one.category for id, one in everyday.items()},
        )
    )
    return suites


def _behaviours(path: Path) -> Asked:
    """Harmful requests: of HarmBench with their topics, or of any other file."""
    if not has_columns(path, ("Behavior", "BehaviorID")):
        return _numbered(path)
    found = read_behaviours(path)
    requests = [Request(one.id, one.prompt) for one in found]
    return requests, {one.id: one.topic for one in found}


def _safe(path: Path) -> Asked:
    """Harmless requests: of XSTest with their types, or of any other file."""
    if not has_columns(path, ("prompt", "type")):
        return _numbered(path)
    found = [one for one in read_prompts(path) if one.safe]
    requests = [Request(one.id, one.text) for one in found]
    return requests, {one.id: one.kind for one in found}


def _numbered(path: Path) -> Asked:
    """Requests of a file that has no ids and no topics."""
    texts = enumerate(read_texts("harmful", str(path)), start=1)
    requests = [Request(str(number), text) for number, text in texts]
    return requests, {one.id: "all" for one in requests}


def _limited(requests: Sequence[Request], most: int | None) -> list[Request]:
    """At most so many of a file, which is sorted by topic."""
    return spread(requests, len(requests) if most is None else most)


def _sources(arguments: Namespace) -> dict[str, Any]:
    """What the requests and the model are, so that no study mixes two."""
    found = {"model": arguments.model, "budget": arguments.budget or "default"}
    if arguments.template_options is not None:
        found["template_options"] = arguments.template_options
    if arguments.model_dtype != "auto":
        found["dtype"] = arguments.model_dtype
    for name in ("behaviours", "safe"):
        path: Path | None = getattr(arguments, name)
        if path is not None:
            found[f"sha256 of {name}"] = sha256(path.read_bytes()).hexdigest()
    return found


def _measured(
    arguments: Namespace,
    name: str,
    intervention: Intervention,
    model: Any,
    tokenizer: Any,
    words: Sequence[str] | None,
    console: Console,
) -> Mapping[str, Any]:
    """What `measure` finds of an intervention, or found when the study ran before."""
    path, size = arguments.out / f"measurement-{name}.json", evaluation_size(arguments)
    about = {"digest": intervention.digest, "forbid": words, "size": size.to_dict()}
    stored = _stored(path)
    if {key: stored.get(key) for key in about} == about and "measurement" in stored:
        return dict(stored["measurement"])
    if words is None and not intervention.options.get("forbid"):
        words = data.forbidden_words()
    found = measure(
        model, tokenizer, intervention, forbid=words, size=size, progress=console
    )
    result = {**about, "measurement": found.to_dict()}
    write_atomically(path, json.dumps(result, ensure_ascii=False).encode())
    return found.to_dict()


def _stored(path: Path) -> Mapping[str, Any]:
    """What a file holds; nothing where it is damaged, so that it is made anew."""
    try:
        stored = parse_json(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _lines(content: Mapping[str, Any]) -> list[str]:
    """The table at the top of the report, for a terminal."""
    table = next(one for one in sections(content)[0].blocks if isinstance(one, Table))
    rows = [table.head, *table.rows]
    # Turned round: a line for each measure, because defences are fewer.
    columns = [[row[at] for row in rows] for at in range(len(table.head))]
    widths = [max(map(len, cells)) for cells in zip(*columns, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in columns
    ]
