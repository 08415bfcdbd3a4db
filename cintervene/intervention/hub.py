# SPDX-License-Identifier: Apache-2.0
"""Files of interventions on the hub of Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cintervene.errors import ArgumentError, InterventionError

__all__ = ["FILE", "fetch", "hub_errors", "hub_library"]

# What `push_to_hub` calls the file, as `cintervene defend` does.
FILE = "intervention.safetensors"


def hub_library() -> Any:
    """The package huggingface_hub.

    Raises
    ------
    ImportError
        It is not installed, and how to get it.
    """
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            "the hub needs huggingface_hub; pip install 'cintervene[hf]'"
        ) from error


def fetch(
    repo_id: str, file: str, *, revision: str | None, token: str | bool | None
) -> str:
    """Where a file of a repository lies after it was downloaded, if need be.

    Raises
    ------
    ArgumentError, InterventionError, ImportError
        As `Intervention.from_hub`.
    """
    with hub_errors(repo_id):
        return str(
            hub_library().hf_hub_download(
                repo_id, file, revision=revision, token=token, library_name="cintervene"
            )
        )


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Say what the hub says in our own errors."""
    hub_library()
    errors: Any = import_module("huggingface_hub.errors")
    try:
        yield
    except errors.HFValidationError as error:
        raise ArgumentError(
            f"repo_id: got {repo_id!r}; expected 'owner/name' ({error})"
        ) from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InterventionError(
            f"{repo_id}: the hub did not answer as hoped ({first}). Check the name, "
            "the connection, and that you are logged in (hf auth login)"
        ) from error
