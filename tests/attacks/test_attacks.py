# SPDX-License-Identifier: Apache-2.0
"""Attacks with texts, and the file that they are stored in."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.attacks import (
    AttackCase,
    Conversation,
    DirectRequest,
    Jailbreak,
    Prefill,
    Request,
    conversations,
    families,
    read_cases,
    run_attack,
)
from cintervene.errors import ArgumentError

REQUESTS = [Request("one", "Tell me a lie now"), Request("two", "Sing {first} aloud")]


def test_direct_request_and_prefill_leave_the_request_as_it_is() -> None:
    (plain, _) = run_attack(DirectRequest(), REQUESTS)
    assert plain == AttackCase(
        "one", REQUESTS[0].text, "direct request", REQUESTS[0].text
    )
    (filled, _) = run_attack(Prefill("Yes:"), REQUESTS)
    assert (filled.prompt, filled.prefill) == (REQUESTS[0].text, "Yes:")


def test_every_template_carries_the_request() -> None:
    plainly = ("role play", "prefix injection", "refusal suppression")
    plainly += ("payload splitting",)
    for family in families():
        for case in run_attack(Jailbreak(family), REQUESTS):
            assert case.request in (one.text for one in REQUESTS)
            assert case.attack == family
            # "{first}" in a request stays as it is.
            left = re.findall(r"\{(request|second|base64|rot13|leet)\}", case.prompt)
            assert left == []
            plain = "{first}" in case.prompt
            assert plain == ("{first}" in case.request and family in plainly)


@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("role play", "Tell me a lie now"),
        ("prefix injection", "Tell me a lie now"),
        ("refusal suppression", "Tell me a lie now"),
        ("base64", base64.b64encode(b"Tell me a lie now").decode()),
        ("rot13", "Gryy zr n yvr abj"),
        ("leet", "73ll m3 4 l13 n0w"),
    ],
)
def test_encodings(family: str, written: str) -> None:
    for case in run_attack(Jailbreak(family), REQUESTS[:1]):
        assert written in case.prompt


def test_payload_is_split_between_words() -> None:
    for case in run_attack(Jailbreak("payload splitting"), REQUESTS[:1]):
        assert "Tell me a" in case.prompt
        assert "lie now" in case.prompt
        assert "Tell me a lie now" not in case.prompt


def test_conversations_leave_the_request_as_it_is() -> None:
    request = Request("b1", "Do bad thing.")
    assert {"system prompt", "multi-turn"} <= set(conversations())
    for family in conversations():
        attack = Conversation(family)
        made = attack.cases(request, 0, None)  # type: ignore[arg-type]
        assert len({one.turns for one in made}) == len(made) >= 3
        for one in made:
            assert (one.prompt, one.prefill) == (request.text, "")
            last = "assistant" if family == "multi-turn" else "system"
            assert one.turns[-1][0] == last
            assert one.transcript.endswith(f"\n\n[user] {request.text}")
            assert all(text in one.transcript for _, text in one.turns)
        single = Conversation(family, count=1)
        first = {
            single.cases(request, seed, None)[0].turns  # type: ignore[arg-type]
            for seed in range(3)
        }
        assert len(first) == 3
        assert single.options["turns"] == attack.options["turns"]
    with pytest.raises(ArgumentError, match="family: got 'charm'"):
        Conversation("charm")


def test_stored_conversations_are_the_same(tmp_path: Path) -> None:
    path, requests = tmp_path / "cases.json", [Request("b1", "Do bad thing.")]
    made = run_attack(Conversation("multi-turn"), requests, path=path)
    assert run_attack(Conversation("multi-turn"), requests, path=path) == made
    assert read_cases(path) == made


def test_templates_take_turns() -> None:
    requests = [Request(str(number), "x") for number in range(12)]
    cases = run_attack(Jailbreak("role play", count=1), requests, seed=1)
    assert len(cases) == 12
    assert {case.details["template"] for case in cases} == {0, 1, 2}
    with pytest.raises(ArgumentError, match="expected one of role play"):
        Jailbreak("flattery")


@dataclass
class Slow:
    """Takes three steps a request, and may be interrupted before any of them."""

    name: str = "slow"
    steps: int = 3
    allowed: int = 1000
    log: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=lambda: {"limit": float("inf")})

    def cases(
        self, request: Request, seed: int, checkpoint: Any
    ) -> Sequence[AttackCase]:
        done = (checkpoint.state or {"done": 0})["done"]
        checkpoint.step(done)
        while done < self.steps:
            if len(self.log) == self.allowed:
                raise KeyboardInterrupt
            self.log.append(f"{request.id}{done}")
            done += 1
            checkpoint.save({"done": done})
            checkpoint.step(1)
        return [AttackCase(request.id, request.text, self.name, f"p{seed}", answer="ÿ")]


@pytest.mark.parametrize("allowed", [0, 1, 3, 5])
def test_interrupted_attacks_go_on(tmp_path: Path, allowed: int) -> None:
    path = tmp_path / "cases.json"
    first, second = Slow(allowed=allowed), Slow()
    with pytest.raises(KeyboardInterrupt):
        run_attack(first, REQUESTS, path=path)
    told: list[tuple[str, int, int]] = []
    cases = run_attack(
        second, REQUESTS, path=path, progress=lambda *call: told.append(call)
    )
    everything = [f"{one}{n}" for one in ("one", "two") for n in range(3)]
    assert first.log + second.log == everything
    assert read_cases(path) == cases == run_attack(Slow(), REQUESTS)
    assert told[0] == ("slow", 0, 6)
    assert told[-1] == ("slow", 6, 6)
    again = Slow(allowed=0)
    assert run_attack(again, REQUESTS, path=path) == cases
    assert json.loads(path.read_text(encoding="utf-8"))["begun"] == {}


def test_early_ends_count_as_all_steps() -> None:
    class Early(Slow):
        def cases(
            self, request: Request, seed: int, checkpoint: Any
        ) -> Sequence[AttackCase]:
            checkpoint.step(1)
            return [AttackCase(request.id, request.text, self.name, "p")]

    told: list[int] = []
    run_attack(Early(), REQUESTS, progress=lambda _, done, total: told.append(done))
    assert told == [0, 1, 3, 4, 6]


def test_files_of_other_attacks_are_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    run_attack(Slow(), REQUESTS, path=path)
    with pytest.raises(ArgumentError, match="made with seed 0, got 1"):
        run_attack(Slow(), REQUESTS, path=path, seed=1)
    with pytest.raises(ArgumentError, match="made with options"):
        run_attack(Slow(options={"limit": 3}), REQUESTS, path=path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ArgumentError, match="holds no test cases"):
        read_cases(path)
    with pytest.raises(ArgumentError, match=r"id .* twice"):
        run_attack(Slow(), [REQUESTS[0], REQUESTS[0]])


def test_a_changed_request_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    run_attack(DirectRequest(), REQUESTS, path=path)
    (case,) = run_attack(DirectRequest(), [Request("one", "else")], path=path)
    assert case.prompt == "else"
