# SPDX-License-Identifier: Apache-2.0
"""The results of a study as JSON: the source of its page and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cintervene.evaluate.statistics.intervals import LEVEL
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.intervention.intervention import Intervention
from cintervene.study.report.paper import published
from cintervene.study.report.peers import Peer
from cintervene.study.report.summary import category_cells, rows, times
from cintervene.study.report.verdicts import Verdicts, agreements, judged_rates
from cintervene.study.results import CaseResult
from cintervene.utils.json_ready import json_ready
from cintervene.utils.versions import library_versions

__all__ = ["study_content"]

SCHEMA = 1


def study_content(
    model: str,
    settings: Mapping[str, Any],
    cases: Sequence[CaseResult],
    interventions: Mapping[str, Intervention] | None = None,
    measurements: Mapping[str, WordMeasurement | Mapping[str, Any]] | None = None,
    peers: Sequence[Peer] | None = None,
    verdicts: Sequence[Verdicts] = (),
    depth: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    capability: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return what ``report.json`` holds.

    Parameters
    ----------
    model : str
    settings : mapping
        Of the journal.
    cases : sequence of CaseResult
    interventions : mapping of str to Intervention, optional
        By name of the defence.
    measurements : mapping of str to WordMeasurement or mapping, optional
        By name of the defence; a mapping is what its `to_dict` returned.
    peers : sequence of Peer, optional
        Points of other methods, plotted beside the interventions.
    verdicts : sequence of Verdicts, optional
        Of further judges on the same answers.
    depth : mapping of str to sequence of mapping, optional
        By name of the defence: what becomes of answers that were begun, a `DepthPoint`
        by name of its fields for each depth.
    capability : mapping of str to mapping, optional
        By name of the defence: what `Capability.to_dict` returned.
    """
    stated = published(model)
    content: dict[str, Any] = json_ready(
        {
            "schema": SCHEMA,
            "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "model": model,
            "level": LEVEL,
            "versions": library_versions(),
            "settings": settings,
            "cases": len(cases),
            "defences": list(dict.fromkeys(case.defence for case in cases)),
            "rows": [asdict(row) for row in rows(cases)],
            "categories": [asdict(cell) for cell in category_cells(cases)],
            "times": [asdict(one) for one in times(cases)],
            "interventions": {
                name: {
                    "digest": one.digest,
                    "options": one.options,
                    "sweep": one.metrics.get("sweep", []),
                    "seconds": one.metrics.get("seconds", {}),
                }
                for name, one in (interventions or {}).items()
            },
            "measurements": {
                name: one.to_dict() if isinstance(one, WordMeasurement) else one
                for name, one in (measurements or {}).items()
            },
            "peers": [asdict(one) for one in peers or ()],
            "agreement": [
                asdict(x) for one in verdicts for x in agreements(one, cases)
            ],
            "judged": [asdict(x) for one in verdicts for x in judged_rates(one, cases)],
            "depth": depth or {},
            "capability": capability or {},
            "published": None if stated is None else asdict(stated),
        }
    )
    return content
