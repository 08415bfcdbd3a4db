# SPDX-License-Identifier: Apache-2.0
"""Studies: every defence against every attack on every request, and the report."""

from cintervene.study.defence import Clocked, Defence
from cintervene.study.journal import Journal
from cintervene.study.report.content import study_content
from cintervene.study.report.files import write_study
from cintervene.study.results import CaseResult
from cintervene.study.suite import InTurn, Suite
from cintervene.study.sweeps.result import Sweep
from cintervene.study.sweeps.rows import SweepRow
from cintervene.study.sweeps.run import sweep
from cintervene.study.trial import Trial, run_study, sorter

__all__ = [
    "CaseResult",
    "Clocked",
    "Defence",
    "InTurn",
    "Journal",
    "Suite",
    "Sweep",
    "SweepRow",
    "Trial",
    "run_study",
    "sorter",
    "study_content",
    "sweep",
    "write_study",
]
