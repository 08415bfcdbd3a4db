# SPDX-License-Identifier: Apache-2.0
"""Problems of every kind that the exact solver must prove optimal, by number."""

import numpy as np

from cintervene.solvers.preserve import Preserve

KINDS = (
    "plain",
    "correlated",
    "preserve",
    "slack",
    "radii",
    "halfspaces",
    "halfspaces_only",
    "output_on_concept",
    "duplicate_concepts",
    "parallel_concepts",
    "repeated_prompts",
)


def generated(number):
    """Kind, and the arguments of `pcr`, of one problem with d_out > 2 m + n."""
    rng = np.random.default_rng(number)
    kind = KINDS[number % len(KINDS)]
    m, n = int(rng.choice([1, 2, 3, 5, 8, 12])), int(rng.choice([1, 2, 4, 8, 20]))
    d_in, d_out = int(rng.integers(m + 2, 60)), 2 * m + n + int(rng.integers(1, 20))
    levels = (0.99, 0.999, 0.9999) if kind == "correlated" else (0.0, 0.5, 0.9)
    correlation = float(rng.choice(levels))
    inputs = np.sqrt(1 - correlation) * rng.standard_normal((m, d_in))
    inputs += np.sqrt(correlation) * rng.standard_normal(d_in)
    outputs = rng.standard_normal((m, d_out))
    concepts = 0.7 * rng.standard_normal((n, d_out))
    concepts += 0.8 * outputs[rng.integers(0, m, n)]
    if kind == "output_on_concept":
        concepts[0] = outputs[0]
    if kind == "duplicate_concepts" and n > 1:
        concepts[1] = concepts[0]
    if kind == "parallel_concepts" and n > 1:
        concepts[1] = concepts[0] + 1e-6 * rng.standard_normal(d_out)
    if kind == "repeated_prompts" and m > 1:
        inputs[1] = inputs[0]
        outputs[1] = outputs[rng.integers(0, 2)]
    distances = np.linalg.norm(outputs[:, None] - concepts, axis=2)
    arguments = {
        "inputs": inputs,
        "outputs": outputs,
        "concepts": concepts,
        "radius": 1.1 * np.quantile(distances, rng.choice([0.2, 0.5, 0.8, 1.0])),
    }
    if kind == "radii":
        on = rng.random((m, n)) > 0.3
        arguments["radius"] = distances * rng.uniform(0.5, 1.5, (m, n)) * on
    if kind == "preserve":
        benign = rng.standard_normal((int(rng.integers(3, 100)), d_in))
        benign *= np.linspace(2, 0.1, d_in)
        arguments["preserve"] = Preserve(benign, ridge=10.0 ** -rng.integers(0, 4))
    if kind == "slack":
        arguments["slack"] = float(rng.choice([0.01, 1.0, 10.0]))
    if kind.startswith("halfspaces"):
        directions = rng.standard_normal((int(rng.integers(1, 6)), d_out))
        offsets = outputs @ directions.T
        offsets -= rng.uniform(-0.5, 1.5, offsets.shape)
        offsets[rng.random(offsets.shape) < 0.4] = np.inf
        arguments["halfspaces"] = directions, offsets
    if kind == "halfspaces_only":
        arguments["concepts"] = None
    return kind, arguments
