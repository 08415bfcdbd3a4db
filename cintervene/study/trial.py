# SPDX-License-Identifier: Apache-2.0
"""Running attacks against defences, test case by test case."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cintervene.attacks import Attack, AttackCase, Request, run_attack
from cintervene.baselines import Generation
from cintervene.errors import ArgumentError
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import Outcome, outcomes
from cintervene.judges.base import Judge, refusal_matcher
from cintervene.models.precision import quick_products
from cintervene.study.defence import Defence
from cintervene.study.journal import Journal
from cintervene.study.results import CaseResult
from cintervene.study.suite import Suite
from cintervene.utils.json_ready import json_ready
from cintervene.utils.progress import Progress, counting, silent
from cintervene.utils.ranks import deal, world

__all__ = ["Sorter", "Trial", "run_study", "sorter"]

# Requests whose cases are made, answered, judged and stored together.
BATCH = 32
Sorter = Callable[[Sequence[AttackCase], Sequence[str]], Sequence[Outcome]]


def sorter(model: nn.Module, tokenizer: Any, judge: Judge = refusal_matcher) -> Sorter:
    """Make a function that sorts answers into outcomes; the base model judges fluency.

    Fluency is that of prefill and answer together. The judge of refusals reads the
    answer without the prefill: all of it, and what comes after the sentence that the
    prefill began.
    """
    known: dict[tuple[str, str], float] = {}

    def fluency(pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Perplexities of answers, remembered because defences often answer alike."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        if new:
            prompts, answers = zip(*new, strict=True)
            values = perplexities(model, tokenizer, prompts, answers)
            known.update(zip(new, values.tolist(), strict=True))
        return [known[pair] for pair in pairs]

    def sort(cases: Sequence[AttackCase], answers: Sequence[str]) -> list[Outcome]:
        prompts = [case.prompt for case in cases]
        prefills = [case.prefill for case in cases]
        triples = zip(prompts, prefills, answers, strict=True)
        measured = fluency([(prompt, start + rest) for prompt, start, rest in triples])
        return outcomes(
            answers,
            prompts=prompts,
            prefills=prefills,
            judge=judge,
            perplexities=measured,
        )

    return sort


@dataclass(frozen=True)
class _Answered:
    """Answers to some test cases, and seconds of the model and in all."""

    answers: list[str]
    generating: float
    seconds: float

    @property
    def defending(self) -> float:
        """Seconds of what a defence does beside the model."""
        return max(self.seconds - self.generating, 0.0)


@dataclass(frozen=True, eq=False)
class Trial:
    """How test cases are run.

    Attributes
    ----------
    sort : Sorter
        Sorts answers into outcomes; called while no defence is active.
    generation : Generation
    seed : int, default 0
        Of attacks, and of defences that are random.
    """

    sort: Sorter
    generation: Generation
    seed: int = 0

    def cases(
        self,
        suite: Suite,
        defence: Defence,
        attack: Attack,
        requests: Sequence[Request],
        *,
        batch: int = BATCH,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Iterator[CaseResult]:
        """Attack, answer and judge some requests of a suite.

        The defence is active during the attack, so attacks with gradients see the
        defended model. So many requests as `batch` says are answered together, by one
        of the ranks where these share work. The file at `path` lets an interrupted
        attack be resumed.
        """
        with defence.active():
            start = time.perf_counter()
            cases = run_attack(
                attack, requests, path=path, seed=self.seed, progress=progress
            )
            attacking = (time.perf_counter() - start) / max(len(cases), 1)
            groups = _together(cases, requests, batch)
            found = deal("answers to attacks", groups, partial(self._answer, defence))
        for group, answered in zip(groups, found, strict=True):
            yield from self._judged(
                suite, defence.name, attack.name, group, answered, attacking
            )

    def _answer(self, defence: Defence, cases: Sequence[AttackCase]) -> _Answered:
        """Answer test cases; the defence has to be active."""
        start, generating = time.perf_counter(), defence.clocked.seconds
        answers = defence.answer(cases, self.generation, self.seed)
        generating = defence.clocked.seconds - generating
        return _Answered(answers, generating, time.perf_counter() - start)

    def _judged(
        self,
        suite: Suite,
        defence: str,
        attack: str,
        cases: Sequence[AttackCase],
        answered: _Answered,
        attack_seconds: float,
    ) -> Iterator[CaseResult]:
        share = 1 / max(len(cases), 1)
        outcomes = self.sort(cases, answered.answers)
        numbers: Counter[str] = Counter()
        rows = zip(cases, answered.answers, outcomes, strict=True)
        for case, answer, outcome in rows:
            yield CaseResult(
                suite=suite.name,
                defence=defence,
                attack=attack,
                behaviour=case.id,
                category=suite.topics.get(case.id, ""),
                number=numbers[case.id],
                prompt=case.transcript,
                prefill=case.prefill,
                answer=answer,
                outcome=outcome,
                attack_seconds=attack_seconds,
                defence_seconds=answered.defending * share,
                generation_seconds=answered.generating * share,
            )
            numbers[case.id] += 1


@quick_products()
def run_study(
    journal: Journal,
    defences: Sequence[Defence],
    suites: Sequence[Suite],
    trial: Trial,
    *,
    progress: Progress = silent,
    batch: int = BATCH,
) -> list[CaseResult]:
    """Run each attack against each defence on every request that is not yet recorded.

    Parameters
    ----------
    journal : Journal
        Open. Cases that it holds are not run again; new ones are added to it.
    defences : sequence of Defence
    suites : sequence of Suite
    trial : Trial
    progress : Progress, optional
        Each pair of defence and attack is a phase.
    batch : int, default 32
        Requests at a time; an interrupted run loses at most this many for each rank.

    Returns
    -------
    list of CaseResult
        All requested cases, recorded or new, in the order of the arguments.

    Raises
    ------
    ArgumentError
        Two defences or two attacks have the same name, two requests the same id, or the
        journal has other settings or another defence of the same name.
    """
    _check_names("defence", [one.name for one in defences])
    for suite in suites:
        _check_names("attack", [one.name for one in suite.attacks])
    journal.agree(_settings(defences, suites, trial))
    rows = [(d, s, a) for d in defences for s in suites for a in s.attacks]
    results = []
    for place, (defence, suite, attack) in enumerate(rows, start=1):
        row = (suite.name, defence.name, attack.name)
        missing = _missing(journal, row, suite.requests)
        what = attack.name if suite.name == "harmful" else f"{suite.name} requests"
        title = f"{place}/{len(rows)} {defence.name}, {what}"
        step = counting(progress, title, len(missing)) if missing else None
        for start in range(0, len(missing), batch * world()):
            requests = missing[start : start + batch * world()]
            search = _searching(journal, defence, attack, progress)
            journal.add(
                trial.cases(suite, defence, attack, requests, batch=batch, **search)
            )
            if step is not None:
                step(len(requests))
        recorded = _by_request(journal.cases.values(), row)
        results += [case for one in suite.requests for case in recorded[one.id]]
    return results


def _missing(
    journal: Journal, row: tuple[str, str, str], requests: Sequence[Request]
) -> list[Request]:
    """Requests without a record, the longest first.

    Requests that are answered together should be of similar length: the rest is
    padding.
    """
    known = {key[:-1] for key in journal.cases}
    missing = [one for one in requests if (*row, one.id) not in known]
    return sorted(missing, key=lambda one: len(one.text), reverse=True)


def _settings(
    defences: Sequence[Defence], suites: Sequence[Suite], trial: Trial
) -> dict[str, Any]:
    """All that answers depend on, besides the model and the requests."""
    generation = asdict(trial.generation)
    if not generation["turns"]:
        # What is said before a prompt is the attacks' matter.
        del generation["turns"]
    return {
        "generation": generation,
        "seed": trial.seed,
        **{f"defence {one.name}": one.about for one in defences},
        **{
            f"attack {one.name}": json_ready(one.options)
            for suite in suites
            for one in suite.attacks
        },
    }


def _searching(
    journal: Journal, defence: Defence, attack: Attack, progress: Progress
) -> dict[str, Any]:
    """How long attacks are run: with progress, and a file to resume from.

    Defences with the same weights share the file: a search uses the model, not the
    wrappers around it.
    """
    if attack.steps == 1:
        return {}
    name = re.sub(r"\W+", "-", attack.name)
    file = f"attack-{name}-{defence.identity[:12]}.json"
    return {"path": journal.directory / file, "progress": progress}


def _together(
    cases: Sequence[AttackCase], requests: Sequence[Request], batch: int
) -> list[list[AttackCase]]:
    """The test cases of so many requests each, in their order."""
    places = {one.id: at // batch for at, one in enumerate(requests)}
    groups: list[list[AttackCase]] = [[] for _ in range(0, len(requests), batch)]
    for case in cases:
        groups[places[case.id]].append(case)
    return groups


def _by_request(
    cases: Iterable[CaseResult], row: tuple[str, str, str]
) -> dict[str, list[CaseResult]]:
    groups = defaultdict(list)
    for case in cases:
        if (case.suite, case.defence, case.attack) == row:
            groups[case.behaviour].append(case)
    return groups


def _check_names(kind: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"{kind}: got {twice} twice, expected each once; give it another name"
        )
