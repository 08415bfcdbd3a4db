# SPDX-License-Identifier: Apache-2.0
"""Every method with so little to do that it takes a tiny model a few seconds."""

from __future__ import annotations

from typing import Any

from cintervene.prompts.calibration_size import CalibrationSize

FEW = CalibrationSize(
    starting=1, later=1, contrast_words=2, text_words=2, contrast_prompts=4, prompts=4,
    texts=2, answer_tokens=4, tune_words=2, tune_prompts=2,
)  # fmt: skip
# The same kind of thing in a file of the command line.
FEW_TOML = """\
[calibration]
contrast_words = 4
prompts = 4
texts = 2
answer_tokens = 4
tune_words = 2
tune_prompts = 2
contrast_prompts = 4
"""
REQUESTS = ["How to lie?", "How to rob?"] * 3
SENTENCES = ["Bees live in hives.", "The queen lays eggs.", "Honey is sweet."]
_DESCENT: dict[str, Any] = {
    "harmful": REQUESTS, "steps": 2, "answers": 4, "borderline": 4, "answer_tokens": 2
}  # fmt: skip

# By name; what `defend` is called with.
DEFENCES: dict[str, dict[str, Any]] = {
    "pcr": {"forbid": ["bad"], "calibration": FEW},
    "pcr, neurons": {
        "forbid": ["bad"], "calibration": FEW, "layers": "auto", "hinge": "on",
    },
    "pcr, outputs": {"forbid": ["bad"], "calibration": FEW, "concepts": "activation"},
    "pcr, examples": {"examples": SENTENCES, "calibration": FEW},
    "pcr, requests": {"harmful": REQUESTS, "calibration": FEW},
    "tsr": {"method": "tsr", **_DESCENT},
    "tsr, any layers": {"method": "tsr", **_DESCENT, "layers": "auto"},
    "tsr, plain norm": {"method": "tsr", **_DESCENT, "ball": "frobenius"},
    "arr": {"method": "arr", **_DESCENT},
    "gate": {
        "method": "gate", "harmful": REQUESTS, "steps": 2, "examples_per_step": 4,
        "benign": 12, "answer_tokens": 2, "layers": [1],
    },
}  # fmt: skip


def little_defence(name: str, **changes: Any) -> dict[str, Any]:
    """What to call `defend` with: layers 1 and 2, but where another one is named."""
    return {"layers": [1, 2], **DEFENCES[name], **changes}
