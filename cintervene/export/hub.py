# SPDX-License-Identifier: Apache-2.0
"""Interventions published on the hub, with their model cards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cintervene.export.cards.card import Origin, write_card
from cintervene.intervention.hub import FILE, hub_errors, hub_library
from cintervene.intervention.intervention import Intervention

__all__ = ["push"]


def push(
    intervention: Intervention,
    repo_id: str,
    *,
    private: bool,
    token: str | bool | None,
    revision: str | None,
    report: Mapping[str, Any] | None,
    beyond_limits: bool,
) -> str:
    """Publish an intervention; see `Intervention.push_to_hub`.

    What is wrong with the intervention or its report is told before anything is sent.
    """
    with hub_errors(repo_id), TemporaryDirectory() as name:
        directory = Path(name)
        intervention.save(directory / FILE, beyond_limits=beyond_limits)
        write_card(intervention, directory, Origin("intervention", report=report))
        api = hub_library().HfApi(token=token, library_name="cintervene")
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=directory,
            revision=revision,
            commit_message=f"A change of {len(intervention.edits)} weights",
        )
    return str(made)
