# SPDX-License-Identifier: Apache-2.0
"""Results on stdout for programs."""

from __future__ import annotations

import json
from typing import Any

from cintervene.utils.json_ready import json_ready


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    print(json.dumps(json_ready(value), ensure_ascii=False, indent=2, allow_nan=False))
