# SPDX-License-Identifier: Apache-2.0
"""Studies: what is recorded, what is run again, and what rates are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support.studies import case

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.attacks import (
    AttackCase,
    Conversation,
    DirectRequest,
    Prefill,
    Request,
)
from cintervene.baselines import Generation, SelfReminder
from cintervene.errors import ArgumentError
from cintervene.evaluate.requests.outcomes import Outcome
from cintervene.study import (
    CaseResult,
    Clocked,
    Defence,
    InTurn,
    Journal,
    Suite,
    Trial,
    run_study,
)
from cintervene.study.report.paper import published
from cintervene.study.report.samples import samples
from cintervene.study.report.summary import category_cells, rows, times, worst

REQUESTS = [Request(f"b{n}", f"request {n}") for n in range(5)]
TOPICS = {request.id: f"topic {n % 2}" for n, request in enumerate(REQUESTS)}
SUITE = Suite("harmful", REQUESTS, [DirectRequest(), Prefill()], TOPICS)


@dataclass
class Parrot:
    """Answers with the prompt, and remembers what it was asked."""

    asked: list[str] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)
    stop_after: int = 10**6

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        if len(self.asked) + len(prompts) > self.stop_after:
            raise KeyboardInterrupt
        self.asked += prompts
        self.said.append(generation.turns)
        return [f"{generation.prefill}|{prompt}" for prompt in prompts]


def even_refuse(attempts: Sequence[Any], answers: Sequence[str]) -> list[Outcome]:
    return [
        Outcome.REFUSED if int(one.prompt[-1]) % 2 == 0 else Outcome.COMPLIED
        for one in attempts
    ]


def defence(parrot: Parrot, name: str = "none") -> Defence:
    clocked = Clocked(parrot)
    return Defence(name, torch.nn.Identity(), clocked, clocked)


def study(out: Path, parrot: Parrot, **changes: Any) -> list[CaseResult]:
    trial = Trial(even_refuse, Generation(), **changes)
    with Journal(out) as journal:
        return run_study(journal, [defence(parrot)], [SUITE], trial, batch=2)


def test_every_case_is_run_once_and_in_order(tmp_path: Path) -> None:
    parrot = Parrot()
    cases = study(tmp_path / "out", parrot)
    assert [c.behaviour for c in cases] == [f"b{n}" for n in range(5)] * 2
    assert [c.attack for c in cases] == ["direct request"] * 5 + ["prefill"] * 5
    assert cases[0].answer == "|request 0"
    assert cases[5].answer == "Sure, here is|request 0"
    assert [c.category for c in cases[:2]] == ["topic 0", "topic 1"]
    assert [c.outcome for c in cases[:2]] == [Outcome.REFUSED, Outcome.COMPLIED]
    assert all(c.generation_seconds > 0 for c in cases)
    again = Parrot()
    assert study(tmp_path / "out", again) == cases
    assert again.asked == []


def test_interrupted_study_goes_on(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole", Parrot())
    first = Parrot(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "out", first)
    second = Parrot()
    cases = study(tmp_path / "out", second)
    assert [(c.key, c.answer, c.outcome) for c in cases] == [
        (c.key, c.answer, c.outcome) for c in whole
    ]
    assert len(first.asked) + len(second.asked) == 10


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    cases = study(tmp_path, Parrot())
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    parrot = Parrot()
    mended = study(tmp_path, parrot)
    assert parrot.asked == ["request 4"]
    assert [c.key for c in mended] == [c.key for c in cases]
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"case": {"suite": "x"}}'])
def test_damaged_journal_is_told(tmp_path: Path, line: bytes) -> None:
    study(tmp_path, Parrot())
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(ArgumentError, match=r"line 1 of .*journal\.jsonl"):
        study(tmp_path, Parrot())


def test_other_settings_are_refused(tmp_path: Path) -> None:
    study(tmp_path, Parrot())
    with pytest.raises(ArgumentError, match="seed 0, got 1"):
        study(tmp_path, Parrot(), seed=1)


def test_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ArgumentError, match=r"holds thesis\.tex"), Journal(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("existing", [False, True])
def test_what_fails_at_once_binds_nothing(tmp_path: Path, existing: bool) -> None:
    out = tmp_path / "a" / "out"
    if existing:
        out.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))

    def misspelt() -> None:
        with Journal(out) as journal:
            journal.agree({"model": "misspelt"})
            raise ArgumentError("no such model")

    with pytest.raises(ArgumentError, match="no such model"):
        misspelt()
    assert sorted(tmp_path.rglob("*")) == before
    with Journal(out) as journal:
        journal.agree({"model": "right"})
    assert journal.settings == {"model": "right"}


def test_what_fails_later_is_kept(tmp_path: Path) -> None:
    def interrupted(out: Path, added: list[CaseResult], beside: str) -> None:
        with Journal(out) as journal:
            journal.agree({"seed": 0})
            journal.add(added)
            if beside:
                (out / beside).touch()
            raise KeyboardInterrupt

    # What a search writes beside the journal is something to go on with, too.
    for added, beside in (([case()], ""), ([], "search.json")):
        out = tmp_path / f"with {beside}"
        with pytest.raises(KeyboardInterrupt):
            interrupted(out, added, beside)
        with Journal(out) as journal:
            assert journal.settings == {"seed": 0}
            assert len(journal.cases) == len(added)


def test_no_study_is_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ArgumentError, match=r"out: got .*, expected a place in a dir"),
        Journal(tmp_path / "file" / "out"),
    ):
        pass


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "out"),
        pytest.raises(ArgumentError, match="another process"),
        Journal(tmp_path / "out"),
    ):
        pass


def test_names_are_told_apart(tmp_path: Path) -> None:
    trial = Trial(even_refuse, Generation())
    twins = [defence(Parrot()), defence(Parrot())]
    with Journal(tmp_path) as journal, pytest.raises(ArgumentError, match="none twice"):
        run_study(journal, twins, [SUITE], trial)


def test_answers_that_are_no_text_are_kept(tmp_path: Path) -> None:
    odd = case(answer="a\ud800b\u2028c\r\n\x00\t\"'</script>")
    with Journal(tmp_path) as journal:
        journal.add([odd])
    with Journal(tmp_path) as journal:
        (found,) = journal.cases.values()
    assert found.answer == odd.answer.replace("\ud800", "?")


def test_conversations_are_sent_and_recorded(tmp_path: Path) -> None:
    parrot = Parrot()
    suite = Suite("harmful", REQUESTS, [Conversation("multi-turn", count=1)], TOPICS)
    trial = Trial(even_refuse, Generation())
    for _ in range(2):
        with Journal(tmp_path) as journal:
            cases = run_study(journal, [defence(parrot)], [suite], trial)
    assert sorted(parrot.asked) == [one.text for one in REQUESTS]
    assert {turns[-1][0] for turns in parrot.said} == {"assistant"}
    for one, request in zip(cases, REQUESTS, strict=True):
        assert one.prompt.startswith("[user] ")
        assert one.prompt.endswith(f"[user] {request.text}")


def test_attacks_in_turn() -> None:
    attack = InTurn("both", [DirectRequest(), Prefill()])
    made = [attack.cases(one, 0, None)[0] for one in REQUESTS]  # type: ignore[arg-type]
    assert {one.prefill for one in made} == {"", "Sure, here is"}
    shifted = [attack.cases(one, 1, None)[0] for one in REQUESTS]  # type: ignore[arg-type]
    assert all(a.prefill != b.prefill for a, b in zip(made, shifted, strict=True))


def test_worst_attempt_counts() -> None:
    kinds = (Outcome.REFUSED, Outcome.BROKEN, Outcome.COMPLIED)
    tried = [case(number=n, outcome=kind) for n, kind in enumerate(kinds)]
    assert worst(tried) == {"b": Outcome.COMPLIED}
    assert worst(tried[:2]) == {"b": Outcome.BROKEN}
    assert worst(tried[:1]) == {"b": Outcome.REFUSED}
    harmless = [replace(one, suite="safe") for one in tried]
    assert worst(harmless) == {"b": Outcome.REFUSED}


def test_rows_compare_the_same_requests() -> None:
    base = [case(behaviour=f"b{n}") for n in range(8)]
    kept = [
        case(
            behaviour=f"b{n}",
            defence="pcr",
            outcome=Outcome.COMPLIED if n == 0 else Outcome.REFUSED,
        )
        for n in range(8)
    ]
    first, second = rows([*base, *kept])
    assert first.paired is None
    assert first.outcomes.complied.value == 1.0
    assert second.outcomes.complied.value == 1 / 8
    assert second.paired is not None
    assert (second.paired.gained, second.paired.lost) == (0, 7)
    assert second.paired.p == 2 / 2**7
    assert [(c.defence, c.complied, c.total) for c in category_cells(base + kept)] == [
        ("none", 8, 8), ("pcr", 1, 8),
    ]  # fmt: skip
    assert times(base)[0].generating == 3.0


def test_samples_begin_with_what_is_disputed() -> None:
    cases = [case(behaviour=f"b{n}") for n in range(4)]
    cases += [replace(one, defence="pcr") for one in cases]
    cases[-1] = replace(cases[-1], outcome=Outcome.REFUSED)
    chosen = samples(cases, most=2)
    assert [one.cases[0].behaviour for one in chosen] == ["b3", "b0"]
    assert [one.defence for one in chosen[0].cases] == ["none", "pcr"]


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 11.0),
        ("./Meta-Llama-3.1-8B-Instruct", 11.0),
        ("mistralai/Mistral-7B-Instruct-v0.2", 30.0),
        ("google/gemma-2b-it", 22.0),
        ("google/gemma-2-2b-it", None),
        ("smollm2", None),
    ],
)
def test_published_numbers(name: str, rate: float | None) -> None:
    found = published(name)
    assert (found and found.complied["none"]) == rate


@dataclass
class Search:
    """An attack with a budget, which counts how often it searched."""

    name: str = "search"
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 3
    searched: int = 0

    def cases(self, request: Request, seed: int, notes: Any) -> list[AttackCase]:
        self.searched += 1
        answer = "said at once" if request.id == "b0" else None
        found = request.text
        return [AttackCase(request.id, request.text, self.name, found, answer=answer)]


def test_searches_are_shared_by_the_same_weights(tmp_path: Path) -> None:
    search, parrot = Search(), Parrot()
    clocked = Clocked(parrot)
    around = Defence("around", torch.nn.Identity(), clocked, SelfReminder(clocked))
    suite = Suite("harmful", REQUESTS, [search])
    trial = Trial(even_refuse, Generation())
    with Journal(tmp_path) as journal:
        cases = run_study(journal, [defence(parrot), around], [suite], trial)
    assert search.searched == len(REQUESTS)
    assert (tmp_path / "attack-search-base.json").is_file()
    # What an attack has had answered already is not asked again.
    assert len(parrot.asked) == 2 * (len(REQUESTS) - 1)
    assert cases[0].answer == cases[5].answer == "said at once"
    assert cases[6].answer != cases[1].answer == "|request 1"


def test_what_stands_around_a_model_is_a_setting(tmp_path: Path) -> None:
    clocked = Clocked(Parrot())
    trial = Trial(even_refuse, Generation())

    def begin(after: str) -> None:
        reminder = SelfReminder(clocked, after=after)
        around = Defence("around", torch.nn.Identity(), clocked, reminder)
        with Journal(tmp_path) as journal:
            run_study(journal, [around], [], trial)

    begin("Be good.")
    begin("Be good.")
    with pytest.raises(ArgumentError, match="defence around"):
        begin("Be bad.")
