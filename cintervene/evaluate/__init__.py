# SPDX-License-Identifier: Apache-2.0
"""Measuring interventions, before and after, with an interval at each number."""

from cintervene.evaluate.capability.measure import Capability, measure_capability
from cintervene.evaluate.report.capability_table import capability_table
from cintervene.evaluate.report.report import report_content, write_report
from cintervene.evaluate.report.request_table import request_table
from cintervene.evaluate.report.word_table import word_table
from cintervene.evaluate.requests.measure import RequestMeasurement, measure_requests
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    Outcomes,
    Paired,
    compare_outcomes,
    outcomes,
)
from cintervene.evaluate.statistics.intervals import (
    Estimate,
    bootstrap_mean,
    paired_difference,
    wilson,
)
from cintervene.evaluate.statistics.paired import Change
from cintervene.evaluate.words.goals import (
    Goals,
    Verdict,
    goals_reached,
    side_effects,
    verdicts,
)
from cintervene.evaluate.words.measure import measure
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.judges.refusal import judge_refusal
from cintervene.prompts.evaluation_size import EvaluationSize

__all__ = [
    "Capability",
    "Change",
    "Estimate",
    "EvaluationSize",
    "Goals",
    "Outcome",
    "Outcomes",
    "Paired",
    "RequestMeasurement",
    "Verdict",
    "WordMeasurement",
    "bootstrap_mean",
    "capability_table",
    "compare_outcomes",
    "goals_reached",
    "judge_refusal",
    "measure",
    "measure_capability",
    "measure_requests",
    "outcomes",
    "paired_difference",
    "report_content",
    "request_table",
    "side_effects",
    "verdicts",
    "wilson",
    "word_table",
    "write_report",
]
