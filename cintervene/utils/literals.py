# SPDX-License-Identifier: Apache-2.0
"""Names that arguments of several packages can be one of."""

from __future__ import annotations

from typing import Literal

__all__ = ["Matrix"]

# Which projection of a layer, by its usual name: what ends the MLP or the attention.
Matrix = Literal["down_proj", "o_proj"]
