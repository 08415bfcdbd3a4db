# SPDX-License-Identifier: Apache-2.0
"""Running defences against attacks, case by case."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cintervene.attacks import Attack, Request, run_attack
from cintervene.baselines import Generation
from cintervene.errors import ArgumentError
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    outcomes,
)
from cintervene.judges.base import (
    Judge,
    refusal_matcher,
)
from cintervene.models.precision import quick_products
from cintervene.study.results import CaseResult
from cintervene.study.defence import Defence
from cintervene.study.journal import Journal
from cintervene.study.suite import Suite
from cintervene.utils.json_ready import json_ready
from cintervene.utils.progress import (
    Progress,
    counting,
    silent,
)

__all__ = ["Sorter", "Trial", "run_study", "sorter"]

# Requests whose cases are made, answered, judged and stored together.
BATCH = 32
Sorter = Callable[[Sequence[AttackCase], Sequence[str]], Sequence[Outcome]]


def sorter(model: nn.Module, tokenizer: Any, judge: Judge = refusal_matcher) -> Sorter:
    """Make a function that sorts answers, with the base model as judge of fluency.

    What was put in the model's mouth belongs to the text whose fluency counts, but the
    judge of refusals reads what the model itself went on to say: all of it, and what
    comes after the sentence that was begun.
    """
    known: dict[tuple[str, str], float] = {}

    def fluency(said: Sequence[tuple[str, str]]) -> list[float]:
        """Perplexities of answers to prompts: defences often give the same answer."""
        new = [pair for pair in dict.fromkeys(said) if pair not in known]
        if new:
            asked, answered = zip(*new, strict=True)
            found = perplexities(model, tokenizer, asked, answered)
            known.update(zip(new, found.tolist(), strict=True))
        return [known[pair] for pair in said]

    def sort(attempts: Sequence[AttackCase], answers: Sequence[str]) -> list[Outcome]:
        prompts = [attempt.prompt for attempt in attempts]
        begun = [attempt.prefill for attempt in attempts]
        tries = zip(prompts, begun, answers, strict=True)
        nats = fluency([(asked, start + said) for asked, start, said in tries])
        return outcomes(
            answers, prompts=prompts, begun=begun, judge=judge, perplexities=nats
        )

    return sort


@dataclass(frozen=True, eq=False)
class Trial:
    """How cases are run.

    Attributes
    ----------
    sort : Sorter
        Sorts answers into outcomes; no defence is in place then.
    generation : Generation
    seed : int, default 0
        Of defences that draw.
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
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Iterator[CaseResult]:
        """Attack, answer and judge some requests of a suite.

        The attack is made while the defence is in place: one that looks at the model
        looks at the defended one. What it needs to go on later is stored at `path`.
        """
        with defence.active():
            begun = time.perf_counter()
            attempts = run_attack(
                attack, requests, path=path, seed=self.seed, progress=progress
            )
            attacked = time.perf_counter()
            generating = defence.clocked.seconds
            answers = defence.answer(attempts, self.generation, self.seed)
            generating = defence.clocked.seconds - generating
            answering = time.perf_counter() - attacked
        each = 1 / max(len(attempts), 1)
        outcomes = self.sort(attempts, answers)
        seen: Counter[str] = Counter()
        for attempt, answer, outcome in zip(attempts, answers, outcomes, strict=True):
            yield CaseResult(
                suite=suite.name,
                defence=defence.name,
                attack=attack.name,
                behaviour=attempt.id,
                category=suite.topics.get(attempt.id, ""),
                number=seen[attempt.id],
                prompt=attempt.prompt,
                prefill=attempt.prefill,
                answer=answer,
                outcome=outcome,
                attack_seconds=(attacked - begun) * each,
                defence_seconds=max(answering - generating, 0.0) * each,
                generation_seconds=generating * each,
            )
            seen[attempt.id] += 1


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
    """Run every defence against every attack on every request that is not yet recorded.

    Parameters
    ----------
    journal : Journal
        Open. What it holds is not run again; what is run is added to it.
    defences : sequence of Defence
    suites : sequence of Suite
    trial : Trial
    progress : Progress, optional
        Each defence and attack is a phase.
    batch : int, default 32
        Requests at a time; as many are lost at most when the run is interrupted.

    Returns
    -------
    list of CaseResult
        Those that were asked for, recorded or new, in the order asked for.

    Raises
    ------
    ArgumentError
        Two defences or two attacks have one name, two requests have one id, or the
        journal was begun with other settings, or another defence of the same name.
    """
    _check_names("defence", [one.name for one in defences])
    for suite in suites:
        _check_names("attack", [one.name for one in suite.attacks])
    journal.agree(_settings(defences, suites, trial))
    rows = [(d, s, a) for d in defences for s in suites for a in s.attacks]
    found = []
    for place, (defence, suite, attack) in enumerate(rows, start=1):
        row = (suite.name, defence.name, attack.name)
        known = {key[:-1] for key in journal.cases}
        left = [one for one in suite.requests if (*row, one.id) not in known]
        # What is answered together should be of one length: the rest is padding.
        left.sort(key=lambda one: len(one.text), reverse=True)
        what = attack.name if suite.name == "harmful" else f"{suite.name} requests"
        title = f"{place}/{len(rows)} {defence.name}, {what}"
        step = counting(progress, title, len(left)) if left else None
        for start in range(0, len(left), batch):
            some = left[start : start + batch]
            search = _searching(journal, defence, attack, progress)
            journal.add(trial.cases(suite, defence, attack, some, **search))
            if step is not None:
                step(len(some))
        recorded = _by_request(journal.cases.values(), row)
        found += [case for one in suite.requests for case in recorded[one.id]]
    return found


def _settings(
    defences: Sequence[Defence], suites: Sequence[Suite], trial: Trial
) -> dict[str, Any]:
    """All that answers depend on, beside the model and the requests."""
    return {
        "generation": asdict(trial.generation),
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
    """How attacks are run that take long: with progress, and a file to go on from.

    The file is shared by defences with the same weights: what stands around the model
    is not what is searched on.
    """
    if attack.steps == 1:
        return {}
    name = re.sub(r"\W+", "-", attack.name)
    file = f"attack-{name}-{defence.identity[:12]}.json"
    return {"path": journal.directory / file, "progress": progress}


def _by_request(
    cases: Iterable[CaseResult], row: tuple[str, str, str]
) -> dict[str, list[CaseResult]]:
    found = defaultdict(list)
    for case in cases:
        if (case.suite, case.defence, case.attack) == row:
            found[case.behaviour].append(case)
    return found


def _check_names(kind: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(f"{kind}: got {twice} twice, expected each once")
