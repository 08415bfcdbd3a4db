# SPDX-License-Identifier: Apache-2.0
"""Measuring interventions, before and after, with an interval at each number."""

from cintervene.evaluate.goals import Goals, Verdict
from cintervene.evaluate.intervals import (
    Estimate,
    bootstrap_mean,
    paired_difference,
    wilson,
)
from cintervene.evaluate.measurement import Measurement
from cintervene.evaluate.measures import measure
from cintervene.evaluate.outcomes import Outcome, Outcomes, Paired, compare, outcomes
from cintervene.evaluate.records import Change
from cintervene.evaluate.refusal import judge_refusal
from cintervene.evaluate.report import report_content, write_report
from cintervene.evaluate.requests import RequestMeasurement, measure_requests
from cintervene.evaluate.samples import Budget

__all__ = [
    "Budget",
    "Change",
    "Estimate",
    "Goals",
    "Measurement",
    "Outcome",
    "Outcomes",
    "Paired",
    "RequestMeasurement",
    "Verdict",
    "bootstrap_mean",
    "compare",
    "judge_refusal",
    "measure",
    "measure_requests",
    "outcomes",
    "paired_difference",
    "report_content",
    "wilson",
    "write_report",
]
