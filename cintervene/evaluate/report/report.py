# SPDX-License-Identifier: Apache-2.0
"""A report of an intervention as files: a page, Markdown, JSON and pictures."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cintervene.evaluate.capability.measure import Capability
from cintervene.evaluate.report.html import html_page
from cintervene.evaluate.report.markdown import markdown
from cintervene.evaluate.report.sections import Subject, heading, sections
from cintervene.evaluate.requests.measure import RequestMeasurement
from cintervene.evaluate.words.changed_layers import changed_layers
from cintervene.evaluate.words.goals import DEFAULT_GOALS, Goals, side_effects, verdicts
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.intervention.edit import Edit
from cintervene.intervention.intervention import Intervention
from cintervene.models.weights import dtype_name
from cintervene.utils.exchange import write_together
from cintervene.utils.json_ready import json_ready

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report_content", "write_report"]

SCHEMA = 1
DOTS_PER_INCH = 160


def write_report(
    directory: str | os.PathLike[str],
    intervention: Intervention,
    measurement: WordMeasurement | None = None,
    *,
    goals: Goals = DEFAULT_GOALS,
    capability: Capability | None = None,
    requests: RequestMeasurement | None = None,
) -> list[Path]:
    """Write ``report.html``, ``report.md``, ``report.json`` and pictures.

    The page has its pictures inside and opens from a disk. All files replace those of
    the same names together or not at all. Pictures need the extra `plot` (matplotlib);
    ``report.md`` says if it is missing.

    Parameters
    ----------
    directory : path
        Created if it does not exist.
    intervention : Intervention
        In the form in which it was measured: `export.AdapterIntervention` for a model
        whose weights cannot be changed; the report then says how to use it.
    measurement : WordMeasurement, optional
        What `measure` returned.
    goals : Goals, optional
        What the intervention is held to.
    capability : Capability, optional
        What `measure_capability` returned.
    requests : RequestMeasurement, optional
        What `measure_requests` returned.

    Returns
    -------
    list of Path
        The files, the report for readers first.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    subject = Subject(intervention, measurement, goals, capability, requests)
    content = report_content(intervention, measurement, goals, capability, requests)
    pictures = _pictures(subject)
    files = {
        "report.md": markdown(subject, set(pictures)),
        "report.html": _page(subject, content["written"]),
        "report.json": json.dumps(content, ensure_ascii=False, indent=1) + "\n",
    }
    # Answers can contain lone surrogates, which UTF-8 cannot encode.
    encoded = {name: text.encode("utf-8", "replace") for name, text in files.items()}
    write_together(place, encoded | pictures)
    return [place / name for name in (*files, *pictures)]


def report_content(
    intervention: Intervention,
    measurement: WordMeasurement | None = None,
    goals: Goals = DEFAULT_GOALS,
    capability: Capability | None = None,
    requests: RequestMeasurement | None = None,
) -> dict[str, Any]:
    """Return what ``report.json`` holds."""
    content: dict[str, Any] = json_ready(
        {
            "schema": SCHEMA,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": intervention.model,
            "versions": intervention.versions,
            "digest": intervention.digest,
            "options": intervention.options,
            "metrics": intervention.metrics,
            "weights": [_weight(name, e) for name, e in intervention.edits.items()],
            "goals": asdict(goals),
            "verdicts": _verdicts(measurement, goals),
            "side_effects": [] if measurement is None else side_effects(measurement),
            "measurement": None if measurement is None else measurement.to_dict(),
            "capability": None if capability is None else capability.to_dict(),
            "requests": None if requests is None else requests.to_dict(),
        }
    )
    return content


def _page(subject: Subject, written: str) -> str:
    about = f"Change {subject.intervention.digest[:12]}, written {written}"
    drawn: dict[str, str] = {}
    if find_spec("matplotlib") is not None:
        from cintervene.evaluate.report.svg import svg

        drawn = {
            name: svg(figure, name) for name, figure in _figures(subject, True).items()
        }
    return html_page(heading(subject), about, sections(subject), drawn)


def _weight(name: str, edit: Edit) -> dict[str, Any]:
    return {
        "name": name,
        "layer": edit.layer,
        "shape": edit.shape,
        "dtype": dtype_name(edit.dtype),
        "rank": edit.update.rank,
        "norm": edit.update.norm,
        "relative_norm": edit.relative_norm,
        "base_sha256": edit.base_sha256,
        "result_sha256": edit.result_sha256,
    }


def _verdicts(
    measurement: WordMeasurement | None, goals: Goals
) -> list[dict[str, Any]]:
    if measurement is None:
        return []
    return [
        {**asdict(verdict), "reached": verdict.reached, "certain": verdict.certain}
        for verdict in verdicts(measurement, goals)
    ]


def _pictures(subject: Subject) -> dict[str, bytes]:
    """PNG files by name; none without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    from cintervene.evaluate.report.plot_text import fixed_settings

    with fixed_settings("report"):
        figures = _figures(subject, False)
        return {f"{name}.png": _png(figure) for name, figure in figures.items()}


def _figures(subject: Subject, narrow: bool) -> dict[str, Figure]:
    """The pictures by name; those for a page are narrow, and it needs fewer."""
    from cintervene.evaluate.report import distribution_plot, plots, sweep_plot

    intervention, measurement = subject.intervention, subject.measurement
    figures: dict[str, Figure] = {}
    if not narrow:
        figures["layers"] = plots.layers_figure(changed_layers(intervention))
    sweep = intervention.metrics.get("sweep", [])
    if len(sweep) > 1:
        figure = sweep_plot.sweep_figure(sweep, intervention.options, narrow)
        if figure is not None:
            figures["sweep"] = figure
    if measurement is not None:
        if not narrow:
            figures["perplexity"] = plots.perplexity_figure(measurement)
        figures["words"] = distribution_plot.distribution_figure(
            measurement, subject.goals.word_ratio, narrow
        )
    return figures


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
