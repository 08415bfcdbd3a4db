# SPDX-License-Identifier: Apache-2.0
"""The model card of something that was exported: what was done, proved and measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cintervene.errors import InterventionError
from cintervene.evaluate.report.accounts import accounts, recorded, unique
from cintervene.evaluate.report.blocks import Bullets
from cintervene.evaluate.report.certificate import certificate
from cintervene.evaluate.report.command import command
from cintervene.evaluate.report.markdown_blocks import markdown_blocks, markdown_inline
from cintervene.evaluate.report.table import markdown_table
from cintervene.evaluate.report.wording import number, value_text
from cintervene.evaluate.words.changed_layers import changed_layers
from cintervene.export.cards.measures import crossed, measured, measures
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import sources
from cintervene.methods.account import REVERSIBLE, Options
from cintervene.methods.registry import all_methods
from cintervene.models.embedded import EMBEDDED, file_sha256
from cintervene.models.weights import dtype_name
from cintervene.utils.escaping import markdown_code, markdown_text, printable
from cintervene.utils.ranges import takes_file

Form = Literal["lora", "gguf", "checkpoint", "intervention"]
# A report, or what makes one of the intervention in the form that was written.
Report = Mapping[str, Any] | Callable[[Intervention], Mapping[str, Any]]
CARD = "README.md"
RELATIONS = {
    "lora": "adapter", "gguf": "adapter", "checkpoint": "finetune",
    "intervention": "adapter",
}  # fmt: skip
LIBRARIES = {
    "lora": "peft", "gguf": "llama.cpp", "checkpoint": "transformers",
    "intervention": "cintervene",
}  # fmt: skip
# Of the base's card: what holds for a changed model as well.
INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")


@dataclass(frozen=True)
class Origin:
    """What a model card is about.

    Attributes
    ----------
    form : {"lora", "gguf", "checkpoint", "intervention"}
    base : str
        Name of the base model, by default what the intervention calls it.
    report : mapping, optional
        What `cintervene.evaluate.report_content` returns, or a ``report.json``, and
        under ``"requests"`` what `measure_requests` found. With a true ``"read_again"``
        it is about what the files hold.
    errors : mapping of str to float
        Of `Artefact`.
    front : mapping of str to str
        Lines of the front matter that are taken over from the base's card.
    """

    form: Form
    base: str = ""
    report: Mapping[str, Any] | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    front: Mapping[str, str] = field(default_factory=dict)


def reported(
    report: Report | None, form: Callable[[], Intervention]
) -> Mapping[str, Any] | None:
    """Return a report, made of the form that was read again if it is not there yet."""
    if not callable(report):
        return report
    return {**report(form()), "read_again": True}


def write_card(intervention: Intervention, directory: Path, origin: Origin) -> Path:
    """Write ``README.md`` about the other files of a directory."""
    files = {
        str(path.relative_to(directory)): file_sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != CARD
    }
    place = directory / CARD
    place.write_text(model_card(intervention, origin, files), "utf-8")
    return place


def model_card(
    intervention: Intervention, origin: Origin, files: Mapping[str, str]
) -> str:
    """Return a model card: YAML front matter and Markdown.

    Parameters
    ----------
    intervention : Intervention
    origin : Origin
    files : mapping of str to str
        sha256 of the files that are published, by name.

    Raises
    ------
    InterventionError
        The report is about another intervention.
    """
    report = origin.report
    if report is not None and report.get("digest") != intervention.digest:
        raise InterventionError(
            "report: is about another intervention (its digest differs); give the "
            "report that was written with this one"
        )
    parts = [
        _front(intervention, origin),
        *_opening(intervention, origin),
        *_constraints(intervention),
        *_certificate(intervention, origin),
        *_measures(intervention, origin),
        _limits(intervention, report),
        *_use(intervention, origin),
        *_command(intervention),
        *_hashes(intervention, files),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(card: Path) -> dict[str, str]:
    """Return the lines "key: value" that a card begins with; none without a card."""
    if not card.is_file():
        return {}
    head, *rest = card.read_text("utf-8", errors="replace").split("\n---", 1)
    if not rest or not head.startswith("---"):
        return {}
    pairs = (line.partition(":") for line in head.splitlines())
    return {key: value.strip() for key, _, value in pairs if value.strip()}


def inherited(card: Path) -> dict[str, str]:
    """Return the lines of a card's front matter that hold for a changed model too."""
    return {k: v for k, v in front_matter(card).items() if k in INHERITED}


def _base(intervention: Intervention, origin: Origin) -> str:
    name = origin.base or intervention.model
    return EMBEDDED[name].hub if name in EMBEDDED else name


def _front(intervention: Intervention, origin: Origin) -> str:
    about = {
        "base_model": _base(intervention, origin),
        "base_model_relation": RELATIONS[origin.form],
        "library_name": LIBRARIES[origin.form],
        "tags": ["cintervene", "model-safety", "low-rank-edit"],
        "cintervene": {
            "version": intervention.versions.get("cintervene", ""),
            "digest": intervention.digest,
        },
    }
    # JSON is YAML; what comes from the base's card stays as it is written there.
    lines = [f"{key}: {json.dumps(value)}" for key, value in about.items()]
    lines += [f"{key}: {printable(value)}" for key, value in origin.front.items()]
    return "\n".join(["---", *lines, "---"])


def _opening(intervention: Intervention, origin: Origin) -> Iterator[str]:
    layers = changed_layers(intervention)
    rank = max(layer.rank for layer in layers)
    size = max(layer.relative_norm for layer in layers)
    base = _base(intervention, origin)
    yield f"# {markdown_text(base)}, changed by cintervene"
    warning = crossed(intervention)
    if warning:
        yield warning
    found = unique(
        markdown_inline(account.fill(account.found, options))
        for account, options in accounts(intervention.options)
    )
    yield (
        f"{len(layers)} weight matrices of {markdown_text(base)} were changed, each by "
        f"a matrix of rank {rank} or less and of at most {size:.1%} of the weight's "
        f"norm. {' '.join(found)} No other weight was touched."
    )


def _constraints(intervention: Intervention) -> Iterator[str]:
    options = intervention.options
    yield "## Constraints"
    for part, (account, known) in zip(sources(options), accounts(options), strict=True):
        yield markdown_inline(account.fill(account.asked, known))
        yield from _unrecorded(part)
        rows = list(_rows(part))
        if rows:
            yield markdown_table(("option", "value", "meaning"), rows)
    if "scaled_by" in options:
        factor = number(options["scaled_by"])
        yield f"What was found was multiplied by {factor} afterwards."


def _unrecorded(options: Options) -> Iterator[str]:
    """Say of which texts only the number is known."""
    counts = [
        f"`{name}` ({value})"
        for name, (one, value) in recorded(options).items()
        if one.private and value
    ]
    if counts:
        yield f"Of texts only the number is recorded: {', '.join(counts)}."


def _rows(options: Options) -> Iterator[tuple[str, str, str]]:
    """Parameters with their values and meaning, and whatever else was recorded."""
    known = recorded(options)
    shown = {"forbid", *known, *(one.formerly for one, _ in known.values())}
    method = all_methods().get(options.get("method", ""))
    if method is not None:
        shown.add("method")
        yield "method", method.name, method.about
    for name, (one, value) in known.items():
        unset = value is None and one.default is None
        if not (one.private or unset or name == "forbid"):
            # Of texts, the help says how a file holds them.
            meaning = "" if takes_file(one.range) else one.help
            yield name, _value(value), meaning
    for name, value in options.items():
        if name not in shown and value is not None:
            yield markdown_text(name), _value(value), ""


def _certificate(intervention: Intervention, origin: Origin) -> Iterator[str]:
    yield "## Certificate"
    # Adapters round no weight.
    rounded = origin.form in ("checkpoint", "intervention")
    yield from markdown_blocks(certificate(intervention, rounded))


def _command(intervention: Intervention) -> Iterator[str]:
    blocks = list(command(intervention))
    if blocks:
        yield "## Command"
        yield from markdown_blocks(blocks)


def _measures(intervention: Intervention, origin: Origin) -> Iterator[str]:
    yield "## Measures"
    try:
        yield from list(measures(intervention, origin.report, origin.form))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if origin.report is None:
            raise
        raise InterventionError(
            f"report: is not whole ({type(error).__name__}: {error}); give the report "
            "that was written with this intervention"
        ) from error
    if origin.errors:
        worst = max(origin.errors.values())
        yield (
            "Read again from these files, the change differs from the one meant by at "
            f"most {worst:.1e} of its norm."
        )


def _limits(intervention: Intervention, report: Mapping[str, Any] | None) -> str:
    described = accounts(intervention.options)
    points = [point for account, _ in described for point in account.limits]
    points.append(REVERSIBLE)
    if not measured(report):
        points.append("What it does was not measured on held-out data for this card.")
    elif any(part.get("examples") for part in sources(intervention.options)):
        points.append(
            "How much less likely the subject of the examples became was measured on "
            "the tuning split only: the examples are not recorded."
        )
    (listed,) = markdown_blocks([Bullets(unique(points))])
    return f"## Limits\n\n{listed}"


def _use(intervention: Intervention, origin: Origin) -> Iterator[str]:
    base = _base(intervention, origin)
    yield "## Use"
    yield {
        "lora": (
            "```python\nfrom peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({base!r})\n"
            'model = PeftModel.from_pretrained(base, "THIS DIRECTORY")\n```'
        ),
        "gguf": (
            "```\nllama-cli --model BASE.gguf --lora adapter.gguf\n```\n\n"
            "The rank is uniform and alpha equals it, so the scale is 1."
        ),
        "checkpoint": (
            "```python\nfrom transformers import AutoModelForCausalLM\n\n"
            'model = AutoModelForCausalLM.from_pretrained("THIS DIRECTORY")\n```'
        ),
        "intervention": (
            "```python\nimport cintervene as ci\n\n"
            f"model, tokenizer = ci.models.load({base!r}, hub=True)\n"
            'change = ci.Intervention.from_hub("THIS REPOSITORY")\n'
            "change.apply(model)  # change.revert(model) takes it back\n```"
        ),
    }[origin.form]


def _hashes(intervention: Intervention, files: Mapping[str, str]) -> Iterator[str]:
    yield "## Hashes"
    yield markdown_table(
        ("weight", "type", "sha256 before", "sha256 after"),
        [
            (
                markdown_code(name),
                dtype_name(form.dtype),
                markdown_code(form.base_sha256),
                markdown_code(form.result_sha256 or "unknown"),
            )
            for name, edit in intervention.edits.items()
            for form in edit.forms
        ],
    )
    yield markdown_table(
        ("file", "sha256"),
        [(markdown_code(name), f"`{sha}`") for name, sha in files.items()],
    )
    made = ", ".join(f"{name} {v}" for name, v in intervention.versions.items())
    yield (
        f"sha256 of the change: `{intervention.digest}`. Made with "
        f"{markdown_text(made)}."
    )


def _value(value: Any) -> str:
    return markdown_text(value_text(value))
