# SPDX-License-Identifier: Apache-2.0
"""What was exported is measured as its files hold it, by what it was made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.gguf_files import base_of
from support.measurements import make_measurement
from support.saved_models import save_tiny_model
from support.small_changes import REQUESTS, STEPS, small_change

from cintervene import data
from cintervene.cli import main
from cintervene.errors import ArgumentError, InterventionError
from cintervene.evaluate import Outcome, measure_requests, wilson
from cintervene.export import AdapterIntervention, checkpoint, lora, read_lora
from cintervene.export.checkpoint.intervention import CheckpointIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.models import loading
from cintervene.prompts.chat import generate, render

FEW = ["--limit", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def loaded(place: Path) -> Any:
    return loading.load(place)


@pytest.fixture(scope="module")
def saved(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a change of each kind is stored, made when it is first asked for."""
    directory = tmp_path_factory.mktemp("changes")

    def path(kind: str) -> Path:
        file: Path = directory / f"{kind}.safetensors"
        if not file.exists():
            small_change(loaded, kind).save(file)
        return file

    return path


def answers(loaded: Any, prompts: list[str], tokens: int) -> list[str]:
    model, tokenizer = loaded
    rendered = [render(tokenizer, prompt) for prompt in prompts]
    replies = generate(model, tokenizer, rendered, tokens)
    return [tokenizer.decode(one, skip_special_tokens=True) for one in replies]


def kl_by_hand(loaded: Any, change: Intervention, tokens: int) -> float:
    """Nats a token on the base's answers to three everyday prompts, one by one."""
    model, tokenizer = loaded
    total, count = 0.0, 0
    for prompt in data.benign_prompts("held_out")[:3]:
        ids = render(tokenizer, prompt.text)
        (reply,) = generate(model, tokenizer, [ids], tokens)
        whole, places = torch.tensor([[*ids, *reply]]), slice(len(ids) - 1, -1)

        def rows(whole: Any = whole, places: slice = places) -> Any:
            with torch.no_grad():
                return model(input_ids=whole).logits[0, places].double().log_softmax(-1)

        base = rows()
        with change.applied(model):
            after = rows()
        total += float((base.exp() * (base - after)).sum())
        count += len(reply)
    return total / count


@pytest.fixture(scope="module")
def wide(place: Path) -> Any:
    """The model in float32, where sums by another way are the same."""
    return loading.load(place, dtype="float32")


def by_length(texts: list[str], **_: Any) -> list[Outcome]:
    """A judge that tells random answers apart."""
    return [Outcome.REFUSED if len(one) % 2 else Outcome.COMPLIED for one in texts]


@pytest.mark.parametrize("kind", ["tsr", "gate"])
def test_requests_are_measured_as_by_hand(
    wide: Any, kind: str, monkeypatch: Any
) -> None:
    change = small_change(wide, kind)
    # A model of random weights refuses nothing; something has to tell answers apart.
    monkeypatch.setattr("cintervene.evaluate.requests.measure.outcomes", by_length)
    found = measure_requests(*wide, change, limit=3, tokens=9)
    kinds = ["harmful", "only sounding harmful", "everyday"]
    kinds += ["harmful, ten languages", "harmless, ten languages"]
    assert [one.kind for one in found.asked] == kinds
    assert [one.requests for one in found.asked] == [3] * 5
    assert [one.turned is None for one in found.asked] == [0, 1, 1, 0, 1]
    assert found.depth_before == found.depth_after == []
    prompts = [one.text for one in data.harmful_prompts("held_out")[:3]]
    told = by_length(answers(wide, prompts, 9))
    with change.applied(wide[0]):
        after = by_length(answers(wide, prompts, 9))
    rate = found.asked[0].refused.rate
    assert rate.before == wilson(told.count(Outcome.REFUSED), 3)
    assert rate.after == wilson(after.count(Outcome.REFUSED), 3)
    assert found.kl_prompts == 3
    assert found.kl.value == pytest.approx(kl_by_hand(wide, change, 9), rel=5e-3)
    assert found.kl.low <= found.kl.value <= found.kl.high
    assert json.dumps(found.to_dict())


def test_refused_arguments(loaded: Any, saved: Any) -> None:
    change = Intervention.load(saved("tsr"))
    with pytest.raises(ArgumentError, match="limit: got 0"):
        measure_requests(*loaded, change, limit=0)
    with change.applied(loaded[0]), pytest.raises(InterventionError):
        measure_requests(*loaded, change, limit=1)


def test_reports_are_made_of_what_was_read_again(
    loaded: Any, place: Path, saved: Any, tmp_path: Path
) -> None:
    change = Intervention.load(saved("tsr"))
    seen: list[Intervention] = []

    def report(form: Intervention) -> dict[str, Any]:
        seen.append(form)
        return {"digest": change.digest}

    lora(change, tmp_path / "adapter", dtype="bfloat16", report=report)
    checkpoint(change, place, tmp_path / "changed", report=report)
    adapter, stored = seen
    assert isinstance(adapter, AdapterIntervention)
    held = read_lora(change, tmp_path / "adapter")
    for name, update in held.items():
        assert np.array_equal(adapter.updates[name].matrix(), update.matrix())
        # Not the change that was meant: the factors were rounded.
        meant = change.updates[name].matrix()
        assert not np.array_equal(update.matrix(), meant)
    assert isinstance(stored, CheckpointIntervention)


def test_stored_weights_are_those_of_the_files(
    loaded: Any, place: Path, saved: Any, tmp_path: Path
) -> None:
    change = Intervention.load(saved("gate"))
    checkpoint(change, place, tmp_path / "changed")
    other, _ = loading.load(tmp_path / "changed")
    model, _ = loaded
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    form = CheckpointIntervention(change, tmp_path / "changed")
    with form.applied(model):
        for name, weight in other.named_parameters():
            assert torch.equal(weight, model.get_parameter(name))
        with pytest.raises(InterventionError, match="carries this"):
            form.apply(model)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    with pytest.raises(InterventionError, match="not in this model"):
        form.revert(model)


@pytest.mark.parametrize("kind", ["examples", "harmful", "tsr", "arr", "gate"])
def test_export_measures_requests(
    place: Path, saved: Any, tmp_path: Path, kind: str
) -> None:
    argv = ["export", "--to", "lora", "--model", str(place), "--measure", *FEW]
    argv += ["--intervention", str(saved(kind)), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "read again from these files, added to outputs as adapters are" in card
    for asked in ("harmful", "only sounding harmful", "everyday"):
        assert f"| {asked} (2) | refused | " in card
    assert "KL(base || changed)" in card
    assert "was not measured on held-out data" not in card
    assert ("measured on the tuning split only" in card) == (kind == "examples")


@pytest.mark.parametrize("kind", ["forbid", "gate"])
def test_export_measures_checkpoints(
    place: Path, saved: Any, tmp_path: Path, kind: str, monkeypatch: Any
) -> None:
    argv = ["export", "--to", "checkpoint", "--model", str(place), "--measure", *FEW]
    argv += ["--intervention", str(saved(kind)), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "on the changed weights as they were read again from these files" in card
    assert ("forbidden words' perplexity, said first" in card) == (kind == "forbid")
    assert ("| harmful (2) | refused | " in card) == (kind == "gate")


def test_export_says_that_gguf_was_measured_unquantised(
    place: Path, loaded: Any, saved: Any, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")

    base = base_of(tmp_path / "base.gguf", loaded[0], "llama")
    argv = ["export", "--to", "gguf", "--model", str(place), "--measure", *FEW]
    argv += ["--base", str(base), "--intervention", str(saved("tsr"))]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "with unquantised weights" in card


def test_measure_and_report_exclude_each_other(
    place: Path, saved: Any, tmp_path: Path, capsys: Any
) -> None:
    for to in ("lora", "checkpoint"):
        argv = ["export", "--to", to, "--model", str(place), "--measure"]
        argv += ["--report", str(tmp_path / "report.json")]
        argv += ["--intervention", str(saved("tsr")), "--out", str(tmp_path / "out")]
        assert main(argv) == 2
        assert "--measure, --report: got both" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_reports_of_taught_refusals_are_known_again(
    place: Path, tmp_path: Path
) -> None:
    requests, made = tmp_path / "requests.txt", tmp_path / "made"
    requests.write_text("\n".join(REQUESTS), "utf-8")
    argv = ["defend", "--model", str(place), "--method", "tsr", "--layers", "1"]
    for name, value in STEPS.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    main([*argv, "--harmful", str(requests), "--max-kl", "1e9", "--out", str(made)])
    change = made / "intervention.safetensors"
    report = json.loads((made / "report.json").read_text("utf-8"))
    assert report["digest"] == Intervention.load(change).digest
    argv = ["export", "--to", "lora", "--intervention", str(change)]
    argv += ["--report", str(made / "report.json"), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "On the tuning split, by which this was chosen" in card


@pytest.mark.parametrize("kind", ["gate", "examples"])
def test_evaluate_measures_requests_where_no_words_were_forbidden(
    place: Path, saved: Any, tmp_path: Path, kind: str, capsys: Any
) -> None:
    out = tmp_path / "found"
    code = main(
        ["evaluate", "--model", str(place), "--intervention", str(saved(kind)), *FEW,
         "--tokens", "3", "--out", str(out)]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert code == 0
    for line in ("Harmful (2)", "Only sounding harmful (2)", "Everyday (2)", "refused"):
        assert line in shown
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["digest"] == Intervention.load(saved(kind)).digest
    assert [one["requests"] for one in report["requests"]["asked"]] == [2] * 5
    assert report["requests"]["tokens"] == 3
    # The page and the text say the same.
    for name in ("report.html", "report.md"):
        text = (out / name).read_text("utf-8")
        for told in (
            "Harmful: ", "Only sounding harmful (2)", "split, with greedy answers of 3",
            "Everyday answers moved by", "instructions followed",
        ):  # fmt: skip
            assert told in text, (name, told)
        assert "was not measured on held-out data" not in text


def test_evaluate_measures_a_sum_as_what_it_was_made_for(
    place: Path, saved: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    parts = [Intervention.load(saved(kind)) for kind in ("forbid", "gate")]
    both, out = tmp_path / "both.safetensors", tmp_path / "found"
    (parts[0] + parts[1]).save(both)
    words = make_measurement()
    place_of = "cintervene.cli.commands.evaluate.measure"
    monkeypatch.setattr(place_of, lambda *_, **__: words)
    argv = ["evaluate", "--model", str(place), "--intervention", str(both), *FEW]
    assert main([*argv, "--tokens", "3", "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    report = json.loads((out / "report.json").read_text("utf-8"))
    for found in (printed, report):
        assert found["measurement"]["words"] == words.words
        assert [one["requests"] for one in found["requests"]["asked"]] == [2] * 5
    text = (out / "report.md").read_text("utf-8")
    assert "words forbidden on" not in text.splitlines()[0]
    for told in ("Harmful (2)", "**Forbidden words", "by saying "):
        assert told in text
