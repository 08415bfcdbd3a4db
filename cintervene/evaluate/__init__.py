# SPDX-License-Identifier: Apache-2.0
"""Measuring interventions, before and after, with an interval at each number."""

from cintervene.evaluate.report.report import (
    report_content,
    write_report,
)
from cintervene.evaluate.requests.measure import (
    RequestMeasurement,
    measure_requests,
)
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
)
from cintervene.evaluate.words.measure import measure
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.samples import EvaluationSize
from cintervene.judges.refusal import judge_refusal

__all__ = [
    "Change",
    "Estimate",
    "EvaluationSize",
    "Goals",
    "WordMeasurement",
    "Outcome",
    "Outcomes",
    "Paired",
    "RequestMeasurement",
    "Verdict",
    "bootstrap_mean",
    "compare_outcomes",
    "judge_refusal",
    "measure",
    "measure_requests",
    "outcomes",
    "paired_difference",
    "report_content",
    "wilson",
    "write_report",
]
