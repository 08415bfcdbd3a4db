# SPDX-License-Identifier: Apache-2.0
"""Saved models without a tokenizer, and random changes of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, loading
from cintervene.models.pretrained import read_model
from cintervene.solvers.update import LowRankUpdate


def save(model: Any, directory: Path, **options: Any) -> Path:
    """Save a model as transformers does."""
    with loading.quiet():
        model.save_pretrained(directory, **options)
    return directory


def read(directory: Path, dtype: Any = "auto") -> Any:
    """Load the model of a directory, without a tokenizer."""
    with loading.quiet():
        model = read_model(str(directory), dtype=dtype, local_files_only=True)
    return model.eval()


def changed_weights(model: Any, targets: Iterable[Any], size: float = 0.1) -> Any:
    """An intervention of rank 2 on some projections, the same at every call."""
    source = np.random.default_rng(5)
    pairs = [
        (
            target,
            LowRankUpdate(
                source.normal(size=(target.d_out, 2)) * size,
                source.normal(size=(2, target.d_in)),
            ),
        )
        for target in targets
    ]
    return Intervention.of(model, pairs)


def random_change(model: Any, size: float = 0.1) -> Any:
    """An intervention on two layers of a tiny model."""
    return changed_weights(model, find_targets(model, [1, 3]), size)


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def bits(model: Any) -> dict[str, bytes]:
    """The bytes of every tensor of a model."""
    import torch

    return {
        name: value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for name, value in model.state_dict().items()
    }
