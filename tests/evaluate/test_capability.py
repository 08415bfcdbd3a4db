# SPDX-License-Identifier: Apache-2.0
"""Instructions that code can check, and tasks of lm_eval, before and after."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.speaking_models import make_speaking_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.errors import ArgumentError
from cintervene.evaluate import capability_table, measure_capability, wilson
from cintervene.evaluate.capability import harness, measure
from cintervene.evaluate.capability.checks import (
    CHECKS,
    Instruction,
    follows,
    instructions,
)
from cintervene.evaluate.capability.harness import Score
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.prompts.chat import answer_text, generate, render
from cintervene.solvers.update import LowRankUpdate

# By the instruction's number: an answer that follows it, and one that does not.
ANSWERS = {
    0: ("- apple\n- pear\n- plum", "Apple, pear and plum."),
    1: ("1. Rome\n2. Paris\n3. Bern\n4. Oslo", "Here:\n1. Rome\n2. Paris\n3. Bern"),
    2: ("Water that falls from clouds.", "Rain. " * 30),
    3: ("The sea " * 30, "It is wide."),
    4: ("It purrs. It sleeps!", "It purrs, and it sleeps."),
    5: ("They sing because they court each other.", "They sing. They call."),
    6: ("paris.", "Paris."),
    7: ("GREEN.", "Green."),
    8: ('"Blue."', "It is blue."),
    9: ("15", "7 + 8 = 15"),
    10: ("**54**", "56"),
    11: ("Yes.", "Yes, it is."),
    12: ("no", "No, it is colder."),
    13: ("Dear friend, thanks.", "My dear friend, thanks."),
    14: ("Bread is old. Enjoy your meal.", "Bread. Enjoy your meal. Bye."),
    15: ('"Learn and live."', "Learn and live."),
    16: ("Winter is cold.", "Winter, I think, is cold."),
    17: ("It has trees and a green lawn.", "It has many flowers and a lawn."),
    18: ("In the morning a train crossed the bridge.", "A train crossed the bridge."),
    19: ('```json\n{"name": "Mia", "age": 9}\n```', '{"name": "Mia"}'),
    20: ('["red", "blue", "green"]', '"red", "blue", "green"'),
    21: ("One.\n\nTwo.", "One.\nTwo."),
    22: ("One.\n\nTwo.\n\nThree.", "One.\n\nTwo."),
    23: ("<<Moon>>\nIt shines.", "<Moon>\nIt shines."),
    24: ("Hello!\nP.S. It rains.", "Hello! It rains."),
    25: ("cat, dog, cow, hen, pig", "cat, dog, cow"),
    26: ("saw, axe, file", "saw\naxe\nfile"),
    27: ("The quick grey goose.", "The quick grey goose runs."),
    28: ("21", "12"),
    29: ("river river river", "river river"),
    30: ("Honey.", "They make honey."),
    31: ("cold", "warm"),
    32: ("A week has 7 days.", "7"),
    33: ("Hello! Well done!", "Hello! Well done."),
    34: ("Where? When? With whom?", "Where did you go? Tell me. Was it nice?"),
    35: ("I like **tea**.", "I like tea."),
    36: ("# Trees\nTrees grow tall in the sun.", "Trees\nTrees grow tall."),
    37: ("Bonjour !", "Good morning is bonjour."),
    38: ("l-a-m-p", "lamp"),
    39: ("Dogs like to run every day.", "Dogs run."),
}  # fmt: skip


@pytest.mark.parametrize("number", range(40))
def test_answers_that_follow_and_that_do_not(number: int) -> None:
    instruction = instructions()[number]
    good, bad = ANSWERS[number]
    assert follows(good, instruction)
    assert follows(f"<think>Hm.</think>\n{good}", instruction)
    assert not follows(bad, instruction)
    assert not follows("", instruction)


def test_every_check_is_used() -> None:
    used = {name for one in instructions() for name, *_ in one.checks}
    assert used == set(CHECKS)
    assert len({one.prompt for one in instructions()}) == 40


@pytest.fixture(scope="module")
def made() -> Any:
    model, tokenizer = make_speaking_model(
        eos_token_id=None, bos_token_id=None, pad_token_id=None
    )
    source = np.random.default_rng(1)
    target = find_targets(model, [1])[0]
    left, right = (source.normal(size=size) for size in (
        (target.d_out, 2), (2, target.d_in)))  # fmt: skip
    return (
        model,
        tokenizer,
        Intervention.of(model, [(target, LowRankUpdate(left, right))]),
    )


def test_answers_are_those_of_each_model(made: Any, monkeypatch: Any) -> None:
    model, tokenizer, change = made
    # A model of random weights follows nothing but by chance.
    monkeypatch.setattr(measure, "follows", lambda answer, _: "e" in answer)
    found = measure_capability(model, tokenizer, change, prompts=6, tokens=5)
    prompts = [render(tokenizer, one.prompt) for one in instructions()[:6]]

    def said() -> list[str]:
        return [answer_text(tokenizer, one)
                for one in generate(model, tokenizer, prompts, 5)]  # fmt: skip

    before = said()
    with change.applied(model):
        after = said()
    assert before != after
    assert [one.before for one in found.answers] == before
    assert [one.after for one in found.answers] == after
    hits = [sum("e" in text for text in texts) for texts in (before, after)]
    rate = found.followed
    assert (rate.before, rate.after) == (wilson(hits[0], 6), wilson(hits[1], 6))
    assert "instructions followed, 6" in capability_table(found)
    with pytest.raises(ArgumentError, match="prompts: got 0"):
        measure_capability(model, tokenizer, change, prompts=0)


def test_tasks_are_run_on_both_models(made: Any, monkeypatch: Any) -> None:
    model, tokenizer, change = made
    seen = []

    class HFLM:
        def __init__(self, **given: Any) -> None:
            self.given = given

    def simple_evaluate(wrapped: HFLM, *, tasks: list[str], limit: int | None) -> Any:
        weight = find_targets(model, [1])[0].weight
        seen.append((tasks, limit, float(weight.detach().sum())))
        if tasks == ["unknown"]:
            raise KeyError("unknown")
        results = {
            "alias": "words", "acc,none": 0.5 / len(seen), "acc_stderr,none": 0.1,
            "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": "N/A",
        }  # fmt: skip
        return {"results": {"words": results}}

    package, models = ModuleType("lm_eval"), ModuleType("lm_eval.models.huggingface")
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    models.HFLM = HFLM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval", package)
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", models)
    monkeypatch.setattr(harness, "find_spec", lambda name: object())
    found = measure_capability(
        model, tokenizer, change, prompts=1, tokens=1, tasks=["words"], limit=3
    )
    assert [one[:2] for one in seen] == [(["words"], 3)] * 2
    assert seen[0][2] != seen[1][2]
    accuracy, exact = found.tasks
    assert (accuracy.metric, accuracy.before, accuracy.after) == ("acc", 0.5, 0.25)
    assert (accuracy.error_before, exact.error_before) == (0.1, None)
    assert exact.metric == "exact_match, strict-match"
    assert "words: acc" in capability_table(found)
    with pytest.raises(ArgumentError, match="lm_eval cannot run unknown"):
        measure_capability(model, tokenizer, change, prompts=1, tasks=["unknown"])
    assert float(find_targets(model, [1])[0].weight.detach().sum()) == seen[0][2]


def test_without_lm_eval_it_is_said_at_once(made: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"pip install 'cintervene\[ecosystem\]'"):
        measure_capability(*made, tasks=["hellaswag"])


def test_metrics_have_to_be_the_same() -> None:
    with pytest.raises(ArgumentError, match="other metrics"):
        measure._changes([Score("a", "acc", 1.0, None)], [])


def test_an_unknown_check_is_no_instruction() -> None:
    with pytest.raises(KeyError):
        follows("text", Instruction("p", (("nonsense",),)))
