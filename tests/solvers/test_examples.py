# SPDX-License-Identifier: Apache-2.0
"""The examples in the docstrings of the solvers."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    ["certify", "linear_head", "pcr", "preserve", "projected_gradient", "update"],
)
def test_examples_are_right(name):
    module = importlib.import_module(f"cintervene.solvers.{name}")
    tested = doctest.testmod(module)
    assert tested.attempted > 0
    assert tested.failed == 0
