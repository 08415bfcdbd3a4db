# SPDX-License-Identifier: Apache-2.0
"""The defences and attacks that ``--defence`` and ``--attacks`` name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from cintervene import data
from cintervene.attacks import (
    GCG,
    Attack,
    Conversation,
    DirectRequest,
    EmbeddingPGD,
    Jailbreak,
    Prefill,
    RelaxedPGD,
    conversations,
    families,
)
from cintervene.baselines import (
    Answerer,
    BadWords,
    Guarded,
    SelfReminder,
    SmoothLLM,
    Undefended,
)
from cintervene.cli.common.reports import INTERVENTION
from cintervene.errors import ArgumentError
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.methods.defend import defend
from cintervene.methods.registry import all_methods, find_method
from cintervene.study import Clocked, Defence, InTurn
from cintervene.study.report.summary import BASE
from cintervene.utils.homes import expanded
from cintervene.utils.progress import Progress, silent
from cintervene.utils.ranks import of_one, rank

FILE = ".safetensors"


def named_defences(
    names: str | None,
    model: Any,
    tokenizer: Any,
    words: Sequence[str] | None,
    directory: Path,
    progress: Progress = silent,
    budget: str = "default",
) -> list[Defence]:
    """Build the defences of a comma-separated list; the base comes first.

    Interventions that are named by their method are solved with its defaults in
    `budget`, and kept in `directory`, where a study that goes on finds them.

    Raises
    ------
    ArgumentError
        There is no defence of that name.
    OSError, InterventionError
        The file of an intervention cannot be used.
    """
    listed = [name.strip() for name in (names or BASE).split(",")]
    clocked = Clocked(Undefended(model, tokenizer))
    banned = data.forbidden_words() if words is None else words
    wrappers: dict[str, Callable[[Answerer], Answerer]] = {
        "smoothllm": SmoothLLM,
        "self-reminder": SelfReminder,
        "word-ban": lambda inner: BadWords(inner, tokenizer, banned),
        "guard": lambda inner: Guarded(inner, model, tokenizer, banned),
    }

    def solved(method: str) -> Intervention:
        path = directory / f"{method}{FILE}"
        kept = of_one(
            path.name, lambda: Intervention.load(path) if path.exists() else None
        )
        if kept is not None:
            return kept
        config = find_method(method).config
        values = dict(config.budgets[budget])
        if "forbid" in config.names():
            values["forbid"] = banned
        change = defend(model, tokenizer, method=method, progress=progress, **values)
        # What it does is what the study is about; nothing is shipped.
        if rank() == 0:
            change.save(path, beyond_limits=True)
        return change

    others = [name for name in listed if name != BASE]
    return [
        _defence(name, model, clocked, wrappers, solved) for name in (BASE, *others)
    ]


def named_attacks(
    names: str,
    model: Any,
    tokenizer: Any,
    steps: Mapping[str, Any] | None = None,
    width: Mapping[str, Any] | None = None,
) -> list[Attack]:
    """Build the attacks of a comma-separated list.

    Parameters
    ----------
    names : str
    model, tokenizer
    steps : mapping, optional
        Options of every search, such as ``steps``.
    width : mapping, optional
        Further ones of GCG.

    Raises
    ------
    ArgumentError
        There is no attack of that name.
    """
    kinds, budget = families(), steps or {}
    every = InTurn("templates", [Jailbreak(family, count=1) for family in kinds])
    known: dict[str, Attack] = {
        "direct": DirectRequest(),
        "prefill": Prefill(),
        "templates": every,
        "gcg": GCG(model, tokenizer, **budget, **(width or {})),
        "relaxed-pgd": RelaxedPGD(model, tokenizer, **budget),
        "embedding-pgd": EmbeddingPGD(model, tokenizer, **budget),
        **{family: Jailbreak(family, count=1) for family in kinds},
        **{kind: Conversation(kind, count=1) for kind in conversations()},
    }
    return [_known("--attacks", name.strip(), known) for name in names.split(",")]


def _defence(
    name: str,
    model: Any,
    clocked: Clocked,
    wrappers: dict[str, Callable[[Answerer], Answerer]],
    solved: Callable[[str], Intervention],
) -> Defence:
    """Build one defence of parts that are joined by a plus sign."""
    changes: list[Intervention] = []
    answerer, label = clocked, []
    for part in [] if name == BASE else name.split("+"):
        title, path = _file(part)
        if path is not None:
            changes.append(Intervention.load(path))
        elif part in all_methods():
            changes.append(solved(part))
        else:
            answerer = _known("--defence", part, wrappers)(answerer)
        label.append(title)
    intervention = applicable_form(reduce(add, changes), model) if changes else None
    return Defence("+".join(label) or BASE, model, clocked, answerer, intervention)


def _file(part: str) -> tuple[str, Path | None]:
    """Name and path of FILE or NAME=FILE; of anything else, only what it is called.

    Without a name it is the file's, or where `defend` wrote it that of its directory.
    """
    if not part.endswith(FILE):
        return part, None
    name, equals, rest = part.partition("=")
    if equals and name and not Path(part).exists():
        return name, expanded(rest)
    path = expanded(part)
    written = path.name == INTERVENTION
    return (path.absolute().parent.name if written else path.stem), path


def _known(option: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        others = (*all_methods(), f"FILE{FILE}", f"NAME=FILE{FILE}")
        more = f", {', '.join(others)}" if option == "--defence" else ""
        raise ArgumentError(
            f"{option}: got {name!r}, expected some of {', '.join(known)}{more}; "
            "separate them by commas"
        )
    return known[name]
