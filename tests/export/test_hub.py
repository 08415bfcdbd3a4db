# SPDX-License-Identifier: Apache-2.0
"""Interventions on the hub: what is sent and fetched, without a network."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.cards import split

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("yaml")
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from cintervene.errors import ArgumentError, InterventionError
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate


@pytest.fixture
def change(tiny_model: Any) -> tuple[Any, Intervention]:
    model = tiny_model("llama")
    target = find_targets(model, [1])[0]
    update = LowRankUpdate(np.ones((target.d_out, 1)), np.ones((1, target.d_in)))
    options = {"forbid": ["bomb"], "method": "pcr"}
    return model, Intervention.of(model, [(target, update)], options=options)


class Hub:
    """Repositories in a directory, reached through huggingface_hub's functions.

    Calls are bound to the signatures of the functions that they stand for.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def attach(self, monkeypatch: Any) -> None:
        for owner, name in (
            (hub.HfApi, "create_repo"), (hub.HfApi, "upload_folder"),
            (hub, "hf_hub_download"),
        ):  # fmt: skip
            known = inspect.signature(getattr(owner, name))
            monkeypatch.setattr(owner, name, self._called(name, known))

    def _called(self, name: str, known: inspect.Signature) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = dict(known.bind(*args, **kwargs).arguments)
            api = given.pop("self", None)
            self.calls.append((name, given | {"by": getattr(api, "token", None)}))
            return getattr(self, name)(**given)

        return call

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        if "/" not in repo_id:
            raise HFValidationError("Repo id must be in the form namespace/name")
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, repo_id: str, folder_path: Any, **_: Any) -> None:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def hf_hub_download(self, repo_id: str, filename: str, **_: Any) -> str:
        path = self.root / repo_id / filename
        if not path.exists():
            answer: Any = SimpleNamespace(headers={}, request=None)
            raise RepositoryNotFoundError(
                "404 Client Error.\nRepository Not Found",
                response=answer,
            )
        return str(path)


@pytest.fixture
def there(monkeypatch: Any, tmp_path: Path) -> Hub:
    made = Hub(tmp_path)
    made.attach(monkeypatch)
    return made


def test_what_is_published_is_what_comes_back(change: Any, there: Hub) -> None:
    model, intervention = change
    place = intervention.push_to_hub("me/change", token="secret", revision="dev")
    assert place == "https://huggingface.co/me/change"
    (_, created), (_, uploaded) = there.calls
    assert created["private"] is True
    assert created["exist_ok"] is True
    assert uploaded["revision"] == "dev"
    assert uploaded["by"] == "secret"
    files = sorted(path.name for path in (there.root / "me/change").iterdir())
    assert files == ["README.md", "intervention.safetensors"]
    found = Intervention.from_hub("me/change", revision="dev", token="secret")
    assert there.calls[-1][1]["revision"] == "dev"
    assert found.digest == intervention.digest
    found.apply(model)
    found.revert(model)


def test_the_card_says_how_it_is_used(change: Any, there: Hub) -> None:
    change[1].push_to_hub("me/change", private=False)
    assert there.calls[0][1]["private"] is False
    front, body = split((there.root / "me/change/README.md").read_text("utf-8"))
    assert front["library_name"] == "cintervene"
    assert front["base_model_relation"] == "adapter"
    assert "ci.Intervention.from_hub(" in str(body)


def test_nothing_is_sent_of_what_may_not_be_saved(change: Any, there: Hub) -> None:
    intervention = change[1]
    with pytest.raises(InterventionError, match="about another intervention"):
        intervention.push_to_hub("me/change", report={"digest": "other"})
    intervention.metrics["within_limits"] = False
    with pytest.raises(InterventionError, match="limits"):
        intervention.push_to_hub("me/change")
    assert there.calls == []
    intervention.push_to_hub("me/change", beyond_limits=True)
    assert len(there.calls) == 2


def test_what_the_hub_refuses_is_named(change: Any, there: Hub) -> None:
    with pytest.raises(ArgumentError, match="repo_id: got 'change'"):
        change[1].push_to_hub("change")
    with pytest.raises(InterventionError, match=r"me/none: .*404 Client Error\."):
        Intervention.from_hub("me/none")


def test_a_hub_that_cannot_be_reached_is_named(change: Any, monkeypatch: Any) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise hub.errors.HTTPError("Connection refused")

    monkeypatch.setattr(hub.HfApi, "create_repo", unreachable)
    with pytest.raises(InterventionError, match=r"me/change: .*Connection refused"):
        change[1].push_to_hub("me/change")


def test_without_the_library_it_says_how_to_get_it(change: Any, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install"):
        change[1].push_to_hub("me/change")
    with pytest.raises(ImportError, match="pip install"):
        Intervention.from_hub("me/change")
