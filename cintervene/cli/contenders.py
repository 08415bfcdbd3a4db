# SPDX-License-Identifier: Apache-2.0
"""The defences and attacks that ``--defence`` and ``--attacks`` name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cintervene import data
from cintervene.attacks import (
    GCG,
    Attack,
    DirectRequest,
    EmbeddingPGD,
    Jailbreak,
    Prefill,
    families,
)
from cintervene.baselines import (
    Answerer,
    BadWords,
    SelfReminder,
    SmoothLLM,
    Undefended,
)
from cintervene.cli.reports import INTERVENTION
from cintervene.errors import ArgumentError
from cintervene.models import Intervention
from cintervene.study import Clocked, Defence, InTurn
from cintervene.study.summary import BASE

FILE = ".safetensors"


def named_defences(
    names: str | None, model: Any, tokenizer: Any, words: Sequence[str] | None
) -> list[Defence]:
    """Build the defences of a comma-separated list; the base comes first.

    Raises
    ------
    ArgumentError
        There is no defence of that name.
    OSError, InterventionError
        The file of an intervention cannot be used.
    """
    asked = [name.strip() for name in (names or BASE).split(",")]
    clocked = Clocked(Undefended(model, tokenizer))
    banned = data.forbidden_words() if words is None else words
    wrappers: dict[str, Callable[[Answerer], Answerer]] = {
        "smoothllm": SmoothLLM,
        "self-reminder": SelfReminder,
        "word-ban": lambda inner: BadWords(inner, tokenizer, banned),
    }
    others = [name for name in asked if name != BASE]
    return [_defence(name, model, clocked, wrappers) for name in (BASE, *others)]


def named_attacks(names: str, model: Any, tokenizer: Any) -> list[Attack]:
    """Build the attacks of a comma-separated list.

    Raises
    ------
    ArgumentError
        There is no attack of that name.
    """
    kinds = families()
    every = InTurn("templates", [Jailbreak(family, count=1) for family in kinds])
    known: dict[str, Attack] = {
        "direct": DirectRequest(),
        "prefill": Prefill(),
        "templates": every,
        "gcg": GCG(model, tokenizer),
        "embedding-pgd": EmbeddingPGD(model, tokenizer),
        **{family: Jailbreak(family, count=1) for family in kinds},
    }
    return [_known("--attacks", name.strip(), known) for name in names.split(",")]


def _defence(
    name: str,
    model: Any,
    clocked: Clocked,
    wrappers: dict[str, Callable[[Answerer], Answerer]],
) -> Defence:
    """Build one defence of parts that are joined by a plus sign."""
    intervention, answerer, label = None, clocked, []
    for part in [] if name == BASE else name.split("+"):
        if part.endswith(FILE):
            title, path = _file(part)
            found = Intervention.load(path)
            intervention = found if intervention is None else intervention + found
            label.append(title)
        else:
            answerer = _known("--defence", part, wrappers)(answerer)
            label.append(part)
    return Defence("+".join(label) or BASE, model, clocked, answerer, intervention)


def _file(part: str) -> tuple[str, Path]:
    """Name and path of NAME=FILE, or of a file that exists under all of this.

    Without a name it is the file's, or where `defend` wrote it that of its directory.
    """
    name, equals, rest = part.partition("=")
    if equals and name and not Path(part).exists():
        return name, Path(rest)
    path = Path(part)
    written = path.name == INTERVENTION
    return (path.absolute().parent.name if written else path.stem), path


def _known(option: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        more = f", FILE{FILE}, NAME=FILE{FILE}" if option == "--defence" else ""
        raise ArgumentError(
            f"{option}: got {name!r}, expected some of {', '.join(known)}{more}; "
            "separate them by commas"
        )
    return known[name]
