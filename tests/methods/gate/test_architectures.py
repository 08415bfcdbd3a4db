# SPDX-License-Identifier: Apache-2.0
"""Gates on the architectures that have gated MLPs: what is measured comes true."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.architectures import NAMES, build
from support.gate_examples import random_requests, really

from cintervene import GateConfig
from cintervene.activations.upper_layers import differentiable
from cintervene.errors import ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.gate.descent import GateDescent
from cintervene.methods.gate.gates import Thresholds
from cintervene.models.parts import ModelParts

# One matrix for gate and up projection, norms behind the MLP or not before it, scaled
# and parallel branches, functions without a module, recurrent layers, shared experts.
USUAL = [
    "cohere", "deepseek_v2", "exaone4", "gemma3_text", "gemma4_text", "glm4", "granite",
    "granitemoehybrid", "lfm2", "olmo2", "phi3", "qwen2_moe", "qwen3_5_text",
]  # fmt: skip


def test_what_is_measured_is_what_the_changed_model_does(
    cases: Callable[[int, int], int], counted: Callable[[str, int], None]
) -> None:
    names = [*USUAL, *NAMES][: cases(len(USUAL), len(USUAL) + len(NAMES))]
    refused = []
    for name in names:
        try:
            compare(name)
        except ModelError as error:
            refused.append(f"{name}: {error}")
    counted("architectures with gates", len(set(names)) - len(set(refused)))
    assert not [one for one in refused if one.partition(":")[0] in USUAL]


def compare(name: str) -> None:
    """Make gates of a random model, change it, and measure what it does."""
    model = build(name)
    parts = ModelParts.find(model)
    mlp = find_gated_mlp(parts.decoder, 1)
    examples = random_requests(12, 6)
    config = GateConfig(steps=3, examples_per_step=12, length=1.0)
    descent = GateDescent(parts, mlp, examples, config)
    with torch.no_grad():
        descent.fit()
    with differentiable(model):
        losses = [seen["loss"] for seen in descent.descend()]
    # Routers of experts make the loss jump.
    assert losses[-1] < losses[0] or name not in USUAL, name
    with torch.no_grad():
        for at in (-1.0, 1e3):
            point = descent.measure(Thresholds(at, at), [90])
            change = Intervention.of(model, descent.updates(point.thresholds))
            kl, reached = really(model, change, examples)
            assert kl == pytest.approx(point.kl, rel=0.02, abs=1e-6), name
            assert reached == pytest.approx(point.refused), name
