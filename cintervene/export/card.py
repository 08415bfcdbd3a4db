# SPDX-License-Identifier: Apache-2.0
"""The model card of something that was exported: what was done, proved and measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cintervene.errors import InterventionError
from cintervene.evaluate.goals import Verdict
from cintervene.evaluate.intervals import Estimate
from cintervene.evaluate.layers import changed_layers
from cintervene.evaluate.markdown import LIMITS, table
from cintervene.evaluate.table import number, verdict_text
from cintervene.models.embedded import EMBEDDED, file_sha256
from cintervene.models.intervention import Intervention

Form = Literal["lora", "gguf", "checkpoint"]
CARD = "README.md"
RELATIONS = {"lora": "adapter", "gguf": "adapter", "checkpoint": "finetune"}
LIBRARIES = {"lora": "peft", "gguf": "llama.cpp", "checkpoint": "transformers"}
# Of the base's card: what holds for a changed model as well.
INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")


@dataclass(frozen=True)
class Origin:
    """What a model card is about.

    Attributes
    ----------
    form : {"lora", "gguf", "checkpoint"}
    base : str
        Name of the base model, by default what the intervention calls it.
    report : mapping, optional
        What `cintervene.evaluate.report_content` returns, or a ``report.json``.
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
        *_limits(report),
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
    lines += [f"{key}: {value}" for key, value in origin.front.items()]
    return "\n".join(["---", *lines, "---"])


def _opening(intervention: Intervention, origin: Origin) -> Iterator[str]:
    layers = changed_layers(intervention)
    rank = max(layer.rank for layer in layers)
    size = max(layer.relative_norm for layer in layers)
    base = _base(intervention, origin)
    yield f"# {base}, changed by cintervene"
    yield (
        f"{len(layers)} weight matrices of {base} were changed, each by a matrix of "
        f"rank {rank} or less and of at most {size:.1%} of the weight's norm. Nothing "
        "was trained, and no other weight was touched."
    )


def _constraints(intervention: Intervention) -> Iterator[str]:
    yield "## Constraints"
    options = dict(intervention.options)
    words = options.pop("forbid", None)
    if words:
        listed = ", ".join(map(str, words))
        yield f"The model was made less likely to say {len(words)} words: {listed}."
    elif "examples" in options:
        yield (
            "The model was made less likely to say what its authors gave "
            f"{options['examples']} examples of; they are not recorded."
        )
    elif options.get("method") == "pcr" and "harmful" in options:
        yield (
            f"The model's answers to {options['harmful']} harmful requests were made "
            "less likely. It was not taught to refuse."
        )
    if not options:
        yield "How the change was made was not recorded."
        return
    yield table(("option", "value"), [(k, _value(v)) for k, v in options.items()])


def _certificate(intervention: Intervention, origin: Origin) -> Iterator[str]:
    yield "## Certificate"
    solved = [entry for entry in intervention.metrics.get("layers", []) if entry]
    if not solved:
        yield "None was recorded for this change."
        return
    kind = intervention.options.get("concepts")
    unit = {"activation": "typical distances", "difference": "distances to benign"}.get(
        str(kind), "nats"
    )
    # Adapters round no weight.
    rounded = origin.form == "checkpoint"
    columns = {
        "layer": "layer",
        "status": "status",
        "iterations": "iterations",
        "cost": "cost",
        "asked": f"asked, {unit}",
        "reached_rounded" if rounded else "reached": f"reached, {unit}",
        "shortfall": "worst shortfall",
    }
    keys = [key for key in columns if any(key in entry for entry in solved)]
    yield table(
        [columns[key] for key in keys],
        [[_value(entry.get(key, "")) for key in keys] for entry in solved],
    )
    exact = intervention.options.get("solver") == "exact"
    if exact and all(entry.get("status") == "CONVERGED" for entry in solved):
        yield (
            "Each layer's problem was solved to a proved global optimum: multipliers "
            "show that no smaller change meets its constraints (with the slack of the "
            "options, in the norm that was minimised, for the solution before its rank "
            "was cut). *Reached* is without slack, after the rounding of this form. "
            "The proof is about these constraints, not about other prompts."
        )
    else:
        yield "Optimality was not proved for every layer."


def _measures(intervention: Intervention, origin: Origin) -> Iterator[str]:
    yield "## Measures"
    report = origin.report
    sweep = [p for p in intervention.metrics.get("sweep", []) if p.get("chosen")]
    if report is not None and report.get("verdicts"):
        split = (report.get("measurement") or {}).get("split", "")
        yield f"Before and after, on the package's `{split}` split, with 95% intervals."
        yield table(
            ("measure", "measured", "interval", ""), list(map(_row, report["verdicts"]))
        )
        yield "\n".join(f"- {sentence}" for sentence in report["side_effects"])
    elif sweep:
        point = sweep[0]
        yield "On the tuning split, from which the strength was chosen:"
        yield table(
            ("measure", "after over before"),
            [(name, number(v)) for name, v in point.items()
             if isinstance(v, float) and name != "strength"],
        )  # fmt: skip
    else:
        yield "Not measured."
    if origin.errors:
        worst = max(origin.errors.values())
        yield (
            "Read again from these files, the change differs from the one meant by at "
            f"most {worst:.1e} of its norm."
        )


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    measured = Estimate(**entry["measured"])
    verdict = Verdict(
        entry["name"], measured, entry["unit"], entry["limit"], entry["at_least"]
    )
    return (
        verdict.name,
        verdict_text(verdict),
        f"[{number(measured.low)}, {number(measured.high)}]",
        "reached" if verdict.reached else "**missed**",
    )


def _limits(report: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Limits"
    points = list(LIMITS)
    if report is None or not report.get("verdicts"):
        points.append("What it does was not measured on held-out data for this card.")
    yield "\n".join(f"- {point}" for point in points)


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
    }[origin.form]


def _command(intervention: Intervention) -> Iterator[str]:
    options = intervention.options
    if not {"method", "layers"} <= set(options):
        return
    given = {"method": options["method"], "layers": _value(options["layers"])}
    given |= {name: str(options[name]) for name in ("concepts",) if name in options}
    if "strength" in intervention.metrics:
        given["strength"] = str(intervention.metrics["strength"])
    texts = "--forbid WORDS"
    for name in ("harmful", "examples"):
        if name in options:
            texts = f"--{name} FILE"
    yield "## Command"
    flags = " ".join(f"--{k} {v.replace(', ', ',')}" for k, v in given.items())
    yield (
        f"```\ncintervene defend --model {intervention.model or 'MODEL'} "
        f"{texts} {flags} --out OUT\n```"
    )


def _hashes(intervention: Intervention, files: Mapping[str, str]) -> Iterator[str]:
    yield "## Hashes"
    yield table(
        ("weight", "sha256 before", "sha256 after"),
        [
            (
                f"`{name}`",
                f"`{edit.base_sha256}`",
                f"`{edit.result_sha256 or 'unknown'}`",
            )
            for name, edit in intervention.edits.items()
        ],
    )
    yield table(
        ("file", "sha256"), [(f"`{name}`", f"`{sha}`") for name, sha in files.items()]
    )
    made = ", ".join(f"{name} {v}" for name, v in intervention.versions.items())
    yield f"sha256 of the change: `{intervention.digest}`. Made with {made}."


def _value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
