# SPDX-License-Identifier: Apache-2.0
"""A study treats a method that it has never heard of like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.characters import Characters
from support.interventions import random_intervention
from support.tiny_models import make_tiny_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import defend
from cintervene.attacks import DirectRequest, Request
from cintervene.baselines import Generation, Undefended
from cintervene.intervention.intervention import Intervention
from cintervene.methods.account import Account
from cintervene.methods.config import MethodConfig
from cintervene.methods.registry import Method, register, unregister
from cintervene.study import (
    Clocked,
    Defence,
    Journal,
    Suite,
    Trial,
    run_study,
    sorter,
    study_content,
    write_study,
)

SWEEP = [
    {"strength": float(n), "kl": 0.01 * n, "refused": 0.3 * n, "chosen": n == 2}
    for n in range(3)
]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    """A method without parameters of its own."""

    method: ClassVar[str] = "toy"


def solve(model: Any, tokenizer: Any, config: ToyConfig, progress: Any) -> Intervention:
    return random_intervention(
        model, options=config.to_dict(), metrics={"sweep": SWEEP}
    )


@pytest.fixture
def toy() -> Iterator[None]:
    account = Account("asked", "found", "unproved", ())
    place = f"{__name__}:solve"
    register(Method(ToyConfig, place, "changes weights at random", lambda _: account))
    yield
    unregister("toy")


def make_model() -> Any:
    tokenizer = Characters()
    return make_tiny_model(
        "llama",
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )


@pytest.mark.usefixtures("toy")
def test_study_shows_a_method_that_was_registered(tmp_path: Path) -> None:
    model, tokenizer = make_model(), Characters()
    change = defend(model, tokenizer, method="toy")
    clocked = Clocked(Undefended(model, tokenizer))
    defences = [
        Defence("none", model, clocked, clocked),
        Defence("toy", model, clocked, clocked, change),
    ]
    suite = Suite("harmful", [Request("b", "do it")], [DirectRequest()])
    trial = Trial(sorter(model, tokenizer), Generation(max_new_tokens=4))
    with Journal(tmp_path) as journal:
        cases = run_study(journal, defences, [suite], trial)
        content = study_content("tiny", journal.settings, cases, {"toy": change})
    assert [case.defence for case in cases] == ["none", "toy"]
    assert content["interventions"]["toy"]["options"]["method"] == "toy"
    files = write_study(tmp_path, content, cases)
    page, text = (file.read_text("utf-8") for file in files[:2])
    assert "| toy |" in text
    assert "toy" in page
    if "<svg" in page:
        assert 'aria-label="refusals"' in page  # Its sweep is drawn.
