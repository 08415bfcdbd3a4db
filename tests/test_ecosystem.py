# SPDX-License-Identifier: Apache-2.0
"""Evaluation harnesses run on a changed model, with a task that is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.saved_models import save_tiny_model

from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, loading
from cintervene.solvers.update import LowRankUpdate

WORDS = ["bomb", "cat"]
DOCS = [{"text": "Say bomb.", "good": 0}, {"text": "Say cat.", "good": 1}]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loading.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def make(model: Any) -> Intervention:
    source = np.random.default_rng(5)
    target = find_targets(model, [1])[0]
    left = source.normal(size=(target.d_out, 2))
    update = LowRankUpdate(left, source.normal(size=(2, target.d_in)))
    return Intervention.of(model, [(target, update)])


def words_task(place: Path) -> Any:
    """A task of our own, on a file."""
    (place / "words.json").write_text(json.dumps(DOCS), "utf-8")
    return {
        "task": "words",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(place / "words.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": WORDS,
        "doc_to_target": "good",
        "metric_list": [{"metric": "acc"}],
    }


def test_lm_evaluation_harness(loaded: Any, tmp_path: Path) -> None:
    """Scores of a task of our own, before and after."""
    reason = "needs lm_eval (pip install lm_eval)"
    lm_eval = pytest.importorskip("lm_eval", reason=reason)
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = loaded
    task = words_task(tmp_path)

    def scores() -> Any:
        harness = HFLM(pretrained=model, tokenizer=tokenizer)
        found = lm_eval.simple_evaluate(
            harness, tasks=[task], bootstrap_iters=0, log_samples=True
        )
        samples = sorted(found["samples"]["words"], key=lambda one: one["doc_id"])
        return [[said[0][0] for said in one["resps"]] for one in samples]

    def by_hand(text: str, word: str) -> float:
        said = tokenizer(text).input_ids
        ids = torch.tensor([said + tokenizer(f" {word}").input_ids])
        with torch.no_grad():
            table = model(input_ids=ids).logits.float().log_softmax(-1)[0]
        rows = range(len(said) - 1, ids.shape[1] - 1)
        return float(sum(table[row, ids[0, row + 1]] for row in rows))

    def expected() -> Any:
        return [[by_hand(doc["text"], word) for word in WORDS] for doc in DOCS]

    before, known = scores(), expected()
    with make(model).applied(model):
        after, changed = scores(), expected()
    np.testing.assert_allclose(before, known, rtol=2e-2)
    np.testing.assert_allclose(after, changed, rtol=2e-2)
    assert np.abs(np.subtract(after, before)).max() > 0.5


def test_inspect(loaded: Any, tmp_path: Path) -> None:
    """A task of two samples on a changed checkpoint."""
    reason = "needs inspect_ai (pip install inspect-ai)"
    inspect_ai = pytest.importorskip("inspect_ai", reason=reason)
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import includes

    model, tokenizer = loaded
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    place = tmp_path / "changed"
    with loading.quiet(), make(model).applied(model):
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    samples = [Sample(input=f"Say {word}.", target=word) for word in ("cat", "dog")]
    task = inspect_ai.Task(dataset=samples, scorer=includes())
    log = inspect_ai.eval(
        task,
        model=get_model(f"hf/{place}", config=GenerateConfig(max_tokens=4)),
        log_dir=str(tmp_path / "logs"),
        display="none",
    )[0]
    assert log.status == "success", log.error
    assert log.results.completed_samples == 2


def test_tasks_of_lm_eval_are_measured_before_and_after(
    loaded: Any, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="needs lm_eval (pip install lm_eval)")
    from cintervene.evaluate import measure_capability

    model, tokenizer = loaded
    task = words_task(tmp_path)
    found = measure_capability(
        model, tokenizer, make(model), prompts=1, tokens=1, tasks=[task]
    )
    (accuracy,) = (one for one in found.tasks if one.metric == "acc")
    assert {accuracy.before, accuracy.after} <= {0.0, 0.5, 1.0}
