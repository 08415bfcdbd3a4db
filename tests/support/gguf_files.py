# SPDX-License-Identifier: Apache-2.0
"""GGUF files of tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.models import find_targets

# llama.cpp's names of the projections.
NAMES = {"down_proj": "ffn_down", "o_proj": "attn_output"}


def write_base(path: Path, architecture: str, shapes: dict[str, Any]) -> Path:
    """A GGUF file with no more of a model than some projections."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(4)
    for name, shape in shapes.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def base_of(
    path: Path, model: Any, architecture: str, matrix: Any = "down_proj"
) -> Path:
    shapes = {
        f"blk.{target.layer}.{NAMES[matrix]}.weight": (target.d_out, target.d_in)
        for target in find_targets(model, matrix=matrix)
    }
    # The hinge changes what stands beside a down projection.
    shapes |= {
        name.replace("ffn_down", part): (d_in, d_out)
        for name, (d_out, d_in) in shapes.items()
        if "ffn_down" in name
        for part in ("ffn_gate", "ffn_up")
    }
    return write_base(path, architecture, shapes)
