# SPDX-License-Identifier: Apache-2.0
"""``cintervene evaluate`` with defences and attacks: a study that can go on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from cintervene import data
from cintervene.baselines import Generation
from cintervene.cli.common.asked import sources_of, suites_of
from cintervene.cli.common.budgets import (
    answer_tokens,
    evaluation_size,
    instruction_count,
    search_budget,
)
from cintervene.cli.common.capabilities import (
    capability_of,
    check_tasks,
    named_tasks,
)
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.contenders import named_attacks, named_defences
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named, read_texts
from cintervene.cli.common.judges import named_judges
from cintervene.cli.common.remembered import remembered
from cintervene.errors import ArgumentError
from cintervene.evaluate import measure
from cintervene.evaluate.report.blocks import Table
from cintervene.evaluate.requests.depth import Begun, begin_answers, depth_curve
from cintervene.intervention.intervention import Intervention
from cintervene.judges.base import Judge
from cintervene.study import (
    CaseResult,
    Defence,
    Journal,
    Trial,
    run_study,
    sorter,
    study_content,
    write_study,
)
from cintervene.study.report.peers import read_peers
from cintervene.study.report.sections import sections
from cintervene.study.report.verdicts import Verdicts, judge_cases, readable
from cintervene.utils.ranks import rank


def run(arguments: Namespace, console: Console) -> Exit:
    """Run what is not recorded yet, and write the report of everything."""
    if arguments.out is None:
        raise ArgumentError("--out: got none; a study needs a directory to be kept in")
    words = None if arguments.forbid is None else read_texts("forbid", arguments.forbid)
    check_tasks(arguments)
    peers = None if arguments.peers is None else read_peers(arguments.peers)
    with Journal(arguments.out) as journal:
        journal.agree(_sources(arguments))
        model, tokenizer = load_named(arguments, console)
        attacks = named_attacks(
            arguments.attacks, model, tokenizer, *search_budget(arguments)
        )
        suites = suites_of(arguments, attacks)
        defences = named_defences(
            arguments.defence, model, tokenizer, words, arguments.out, console,
            arguments.budget or "default",
        )  # fmt: skip
        generation = Generation(max_new_tokens=answer_tokens(arguments))
        first, *others = named_judges(arguments, console)
        journal.agree(first[1])
        trial = Trial(sorter(model, tokenizer, first[0]), generation, arguments.seed)
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
        verdicts = [_verdicts(arguments.out, *other, cases) for other in others]
        harmful = [
            one.text for s in suites if s.name == "harmful" for one in s.requests
        ]
        depth = _depth(arguments, defences, harmful, tokenizer, first, console)
        able = {
            name: _capability(arguments, name, one, model, tokenizer, console)
            for name, one in changed.items()
        }
        content = study_content(
            arguments.model, journal.settings, cases, changed, measured, peers,
            verdicts, depth, able,
        )  # fmt: skip
        if rank() > 0:
            return Exit.DONE
        files = write_study(arguments.out, content, cases)
    console.close()
    if arguments.json:
        names = [str(file) for file in files]
        print_json({"command": "evaluate", "files": names, "study": content})
    else:
        say("\n".join(_lines(content)))
        say(f"\n{files[0]} has all of it")
    return Exit.DONE


def _sources(arguments: Namespace) -> dict[str, Any]:
    """What the requests and the model are, so that no study mixes two."""
    found = {"model": arguments.model, "budget": arguments.budget or "default"}
    if arguments.template_options is not None:
        found["template_options"] = arguments.template_options
    if arguments.model_dtype != "auto":
        found["dtype"] = arguments.model_dtype
    return found | sources_of(arguments)


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
    size = evaluation_size(arguments)
    about = {
        "digest": intervention.digest, "forbid": words, "split": arguments.split,
        "size": size.to_dict(),
    }  # fmt: skip
    if words is None and not intervention.options.get("forbid"):
        words = data.forbidden_words()

    def make() -> Mapping[str, Any]:
        return measure(
            model, tokenizer, intervention, forbid=words, split=arguments.split,
            size=size, progress=console,
        ).to_dict()  # fmt: skip

    found: Mapping[str, Any] = remembered(
        arguments.out / f"measurement-{name}.json", about, make
    )
    return found


def _capability(
    arguments: Namespace,
    name: str,
    intervention: Intervention,
    model: Any,
    tokenizer: Any,
    console: Console,
) -> Mapping[str, Any]:
    """What a changed model can do, or what was found when the study ran before."""
    about = {
        "digest": intervention.digest, "tasks": named_tasks(arguments),
        "limit": arguments.limit, "instructions": instruction_count(arguments),
    }  # fmt: skip

    def make() -> Mapping[str, Any]:
        return capability_of(
            arguments, model, tokenizer, intervention, console
        ).to_dict()

    found: Mapping[str, Any] = remembered(
        arguments.out / f"capability-{name}.json", about, make
    )
    return found


def _depth(
    arguments: Namespace,
    defences: Sequence[Defence],
    requests: Sequence[str],
    tokenizer: Any,
    judge: tuple[Judge, Mapping[str, str]],
    console: Console,
) -> dict[str, list[Mapping[str, Any]]]:
    """What becomes of begun answers, for the model and each changed one."""
    bare = [one for one in defences if one.answerer is one.clocked]
    if not arguments.depths or not requests:
        return {}
    tokens = answer_tokens(arguments)
    about = {
        "requests": list(requests), "depths": list(arguments.depths), "tokens": tokens,
        **judge[1],
    }  # fmt: skip
    model, out = bare[0].model, arguments.out

    def begin() -> list[Any]:
        most = max(arguments.depths) + 1
        begun = begin_answers(
            model, tokenizer, requests, tokens=most, judge=judge[0], progress=console
        )
        return [asdict(one) for one in begun]

    stored = remembered(out / "begun.json", about, begin)
    begun = [Begun(one["request"], tuple(one["answer"])) for one in stored]

    def curve(defence: Defence) -> list[Any]:
        with defence.active():
            points = depth_curve(
                model, tokenizer, begun, depths=arguments.depths, tokens=tokens,
                judge=judge[0], progress=console,
            )  # fmt: skip
        return [asdict(one) for one in points]

    return {
        one.name: remembered(
            out / f"depth-{one.name}.json", {**about, "weights": one.identity},
            partial(curve, one),
        )
        for one in bare
    }  # fmt: skip


def _verdicts(
    out: Path, judge: Judge, about: Mapping[str, str], cases: Sequence[CaseResult]
) -> Verdicts:
    """What another judge says of the answers; what it has said is not asked again."""
    read, name = readable(cases), about["judge"]
    texts = [[case.prompt, case.prefill, case.answer] for case in read]
    file = f"verdicts-{sha256(name.encode()).hexdigest()[:8]}.json"
    found = remembered(
        out / file, {**about, "answers": texts}, lambda: judge_cases(judge, read)
    )
    return Verdicts(name, list(found))


def _lines(content: Mapping[str, Any]) -> list[str]:
    """The table at the top of the report, for a terminal."""
    table = next(one for one in sections(content)[0].blocks if isinstance(one, Table))
    rows = [table.head, *table.rows]
    # Turned round: a line for each measure, because defences are fewer.
    columns = [[str(row[at]) for row in rows] for at in range(len(table.head))]
    widths = [max(map(len, cells)) for cells in zip(*columns, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in columns
    ]
