# SPDX-License-Identifier: Apache-2.0
"""The judge that ``--judge`` names."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from cintervene.cli.common.console import Console
from cintervene.data.decoding import decoded
from cintervene.errors import ArgumentError
from cintervene.judges.base import Judge, refusal_matcher
from cintervene.judges.classifiers import Classifier, refusing_label
from cintervene.judges.compliance import QUESTION, CompliancePrompt, harmbench29
from cintervene.models import load
from cintervene.models.devices import usable_device
from cintervene.models.pretrained import read_classifier, read_config, read_tokenizer

__all__ = ["named_judges"]

MATCHER, SUBSTRINGS = "matcher", "harmbench29"


def named_judges(
    arguments: Namespace, console: Console
) -> list[tuple[Judge, dict[str, str]]]:
    """Return the judges of a list by commas, each with what a study says of it.

    The first decides.

    Raises
    ------
    ArgumentError
        No model and no list of phrases has such a name, one is named twice, or a
        classifier has no label for refusals.
    ModelError, OSError
        It cannot be read.
    """
    names = [name.strip() for name in arguments.judge.split(",")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(f"--judge: got {twice!r} twice; give each judge once")
    template = _template(arguments.judge_template)
    return [_named(name, template, arguments, console) for name in names]


def _named(
    name: str, template: str, arguments: Namespace, console: Console
) -> tuple[Judge, dict[str, str]]:
    kind, _, path = name.partition("=")
    if kind == SUBSTRINGS:
        phrases = harmbench29(path or None)
        return phrases, {"judge": phrases.name}
    if name == MATCHER:
        return refusal_matcher, {"judge": MATCHER}
    about = {"judge": name}
    if _classifies(name, arguments.hub):
        return _classifier(name, arguments), about
    model, tokenizer = load(
        name, hub=arguments.hub, device=arguments.device, progress=console
    )
    judge = CompliancePrompt(model, tokenizer, template)
    return judge, {**about, "question of the judge": template}


def _template(path: Path | None) -> str:
    if path is None:
        return QUESTION
    text = decoded(path, "template")
    if "{behavior}" not in text or "{generation}" not in text:
        raise ArgumentError(
            f"--judge-template: {path} lacks {{behavior}} or {{generation}}; put them "
            "where the request and the answer go"
        )
    return text


def _classifies(name: str, hub: bool) -> bool:
    """Whether it is a model with a head for classes, not for words."""
    if not hub and not (Path(name) / "config.json").is_file():
        return False
    config = read_config(name, local_files_only=not hub)
    kinds = config.architectures or []
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)


def _classifier(name: str, arguments: Namespace) -> Classifier:
    local = not arguments.hub
    place = usable_device(arguments.device)
    model: Any = read_classifier(name, local_files_only=local).to(place)
    tokenizer = read_tokenizer(name, local_files_only=local)
    return Classifier(model.eval(), tokenizer, refusing_label(model.config.id2label))
