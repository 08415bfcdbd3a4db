# SPDX-License-Identifier: Apache-2.0
"""Budgets by name and by number."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cintervene.errors import ArgumentError
from cintervene.methods.pcr import PCRConfig
from cintervene.methods.registry import all_methods
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.evaluation_size import EvaluationSize


@pytest.mark.parametrize("kind", [CalibrationSize, EvaluationSize])
def test_budgets_grow(kind: type[CalibrationSize] | type[EvaluationSize]) -> None:
    small, default, large = map(kind.named, ("small", "default", "large"))
    assert default == kind()
    for field in fields(kind):
        sizes = [getattr(one, field.name) for one in (small, default, large)]
        assert sizes == sorted(sizes)
    assert small != default != large
    assert kind.named("small", prompts=5).prompts == 5
    with pytest.raises(ArgumentError, match="budget: got 'tiny'; expected small, def"):
        kind.named("tiny")
    with pytest.raises(ArgumentError, match="promts: is no size; did you mean prompts"):
        kind.named("small", promts=5)


def test_every_method_has_every_budget() -> None:
    for method in all_methods().values():
        assert list(method.config.budgets) == list(CalibrationSize.budgets)
        for values in method.config.budgets.values():
            method.config.check_names(values)


def test_a_calibration_is_named_too() -> None:
    config = PCRConfig(forbid=["bomb"], calibration="small")
    assert config.calibration == CalibrationSize.named("small")
    with pytest.raises(ArgumentError, match="name of a budget, 'small', 'default'"):
        PCRConfig(forbid=["bomb"], calibration="tiny")
