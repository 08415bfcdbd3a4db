# SPDX-License-Identifier: Apache-2.0
"""A report of an intervention as files: Markdown, JSON and pictures."""

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
from cintervene.evaluate.report.markdown import markdown
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
) -> list[Path]:
    """Write ``report.md``, ``report.json`` and pictures.

    They replace those of the same names all together or not at all. Pictures need the
    extra `plot` (matplotlib); the report says if it is missing.

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
    pictures = _pictures(intervention, measurement, goals)
    text = markdown(intervention, measurement, goals, set(pictures), capability)
    files = {
        "report.md": text.encode(),
        "report.json": _json(intervention, measurement, goals, capability),
        **pictures,
    }
    write_together(place, files)
    return [place / name for name in files]


def report_content(
    intervention: Intervention,
    measurement: WordMeasurement | None = None,
    goals: Goals = DEFAULT_GOALS,
    capability: Capability | None = None,
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
        }
    )
    return content


def _json(
    intervention: Intervention,
    measurement: WordMeasurement | None,
    goals: Goals,
    capability: Capability | None,
) -> bytes:
    content = report_content(intervention, measurement, goals, capability)
    text = json.dumps(content, ensure_ascii=False, indent=1)
    return (text + "\n").encode()


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


def _pictures(
    intervention: Intervention, measurement: WordMeasurement | None, goals: Goals
) -> dict[str, bytes]:
    """PNG files by name; none without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    from cintervene.evaluate.report.plot_text import fixed_settings

    with fixed_settings("report"):
        figures = _figures(intervention, measurement, goals)
        return {name: _png(figure) for name, figure in figures.items()}


def _figures(
    intervention: Intervention, measurement: WordMeasurement | None, goals: Goals
) -> dict[str, Figure]:
    from cintervene.evaluate.report import distribution_plot, plots

    figures = {"layers.png": plots.layers_figure(changed_layers(intervention))}
    sweep = intervention.metrics.get("sweep", [])
    if len(sweep) > 1:
        limits = {
            name: intervention.options[name]
            for name in ("max_kl", "max_benign_loss")
            if name in intervention.options
        }
        figures["sweep.png"] = plots.sweep_figure(sweep, **limits)
    if measurement is not None:
        figures["perplexity.png"] = plots.perplexity_figure(measurement)
        figures["words.png"] = distribution_plot.distribution_figure(
            measurement, goals.word_ratio
        )
    return figures


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
