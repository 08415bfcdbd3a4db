# SPDX-License-Identifier: Apache-2.0
"""What a model can do before and after, as a table."""

from __future__ import annotations

from cintervene.evaluate.capability.measure import Capability, TaskChange
from cintervene.evaluate.report.table import Row, Section, change_row, section_lines
from cintervene.evaluate.report.wording import number

__all__ = ["capability_section", "capability_table"]


def capability_table(capability: Capability) -> str:
    """What changed, as text for a terminal."""
    return "\n".join(section_lines([capability_section(capability)], capability.level))


def capability_section(capability: Capability) -> Section:
    """Format all measures."""
    label = f"instructions followed, {capability.requests}"
    rows = [change_row(label, capability.followed), *map(_task, capability.tasks)]
    return Section("Capability", rows)


def _task(one: TaskChange) -> Row:
    """A metric, with the standard errors that lm_eval gives in place of an interval."""
    errors = [one.error_before, one.error_after]
    known = [number(error) for error in errors if error is not None]
    said = f"standard errors {', '.join(known)}" if known else ""
    change = f"{one.after - one.before:+.3g}"
    return Row(
        f"{one.task}: {one.metric}", number(one.before), number(one.after), change, said
    )
