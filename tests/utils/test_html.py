# SPDX-License-Identifier: Apache-2.0
"""Tables of HTML, and what notebooks show of solutions and their proofs."""

from dataclasses import replace

import numpy as np
import pytest
from support.pages import HOSTILE, read

import cintervene as ci
from cintervene.utils.html import html_facts, html_table

PROBLEM = [[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.5]], 1.0


def test_nothing_in_a_table_is_html():
    text = html_table([HOSTILE, "b"], [[HOSTILE, "1"]], (1,), caption=HOSTILE)
    found = read(text)
    assert found.tags["script"] == found.tags["img"] == 0
    assert [found.tags[name] for name in ("caption", "th", "td")] == [1, 2, 2]
    assert "".join(found.text).count("<script>alert(1)</script>") == 3


def test_only_numbers_are_at_the_right():
    text = html_facts("name", {"cost": "1"}.items())
    assert '<td style="text-align:left">cost</td>' in text
    assert '<td style="text-align:right">1</td>' in text
    assert "<thead>" not in text


@pytest.mark.parametrize("weight", [None, np.zeros((2, 2), "f4")])
def test_notebooks_show_what_was_proved(weight):
    solution = ci.pcr(*PROBLEM)
    certificate = ci.certify(solution, *PROBLEM, weight=weight)
    for shown in (solution._repr_html_(), certificate._repr_html_()):
        text = read(shown).text
        assert text[text.index("proved to be optimal") + 1] == "yes"
        assert text[text.index("cost") + 1] == "0.0625"
        assert "color" not in shown
    assert ("not asked for" in certificate._repr_html_()) == (weight is None)


def test_notebooks_show_what_was_not_proved():
    solution = replace(ci.pcr(*PROBLEM), lower_bound=0.0)
    text = read(solution._repr_html_()).text
    assert text[text.index("proved to be optimal") + 1] == "no"


@pytest.mark.parametrize("solve", [ci.tsr, ci.arr])
def test_notebooks_show_what_a_head_was_changed_for(solve):
    solution = solve([[1.0, 0.0]], [[0.0, 0.0, 1.0]], [[0]], 0.5)
    text = read(solution._repr_html_()).text
    told = "yes" if solution.certified else "no"
    assert text[text.index("proved to be optimal") + 1] == told
    assert text[text.index("loss") + 1] == f"{solution.loss:.6g}"
    assert text[text.index("status") + 1] == solution.status.name
