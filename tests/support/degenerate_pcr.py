# SPDX-License-Identifier: Apache-2.0
"""Problems with too few dimensions, ties and contradictions; and a naive solver.

The naive solver is the oracle of feasibility: the most-violated rule in NumPy from
random places. Where it finds a feasible point, the package has to find one.
"""

import numpy as np

from cintervene.solvers.preserve import Preserve

KINDS = (
    "line",
    "plane",
    "opposite_concepts",
    "grid",
    "duplicates",
    "rank_one_inputs",
    "repeated_prompts",
    "zero_radii",
    "on_concepts",
    "boxed",
    "scaled",
    "preserve",
    "slack",
    "simplex",
    "tiny_gaps",
)


def degenerate(number):
    """Kind, and the arguments of `pcr`, of one problem."""
    rng = np.random.default_rng([7, number])
    kind = KINDS[number % len(KINDS)]
    d_out = 1 if kind in ("line", "boxed") else int(rng.choice([1, 2, 3]))
    m, n = int(rng.choice([1, 2, 3, 5])), int(rng.choice([1, 2, 3, 6, 12]))
    inputs = rng.standard_normal((m, int(rng.integers(1, m + 3))))
    outputs = np.round(rng.standard_normal((m, d_out)), int(rng.choice([0, 1, 15])))
    concepts = outputs[rng.integers(0, m, n)] + 0.5 * rng.standard_normal((n, d_out))
    radius = float(rng.choice([0.3, 1.0, 3.0]))
    arguments = {}
    if kind == "plane":
        outputs, concepts = _flat(rng, outputs), _flat(rng, concepts)
    if kind == "opposite_concepts":
        concepts = np.concatenate([concepts, 2 * outputs[0] - concepts + 1e-7])
    if kind in ("grid", "simplex"):
        concepts = outputs[0] + _corners(d_out, kind == "simplex")
    if kind == "duplicates":
        concepts = np.repeat(concepts, 2, axis=0)
    if kind == "rank_one_inputs":
        inputs = rng.choice([-2.0, -1.0, 1.0, 2.0], m)[:, None] * inputs[:1]
    if kind == "repeated_prompts":
        inputs = inputs[rng.integers(0, m, m)]
    if kind == "zero_radii":
        radius = radius * (rng.random((m, len(concepts))) < 0.5)
    if kind == "on_concepts":
        concepts[0] = outputs[0]
    if kind == "boxed":
        span = np.array([[1.0], [-1.0]])
        reach = rng.uniform(1.0, 6.0, 2)
        arguments["halfspaces"] = span, np.max(outputs @ span.T, axis=0) + reach
    if kind == "scaled":
        size = 10.0 ** rng.integers(-40, 40)
        outputs, concepts, radius = size * outputs, size * concepts, size * radius
        inputs = inputs * 10.0 ** rng.integers(-40, 40)
    if kind == "preserve":
        benign = rng.standard_normal((int(rng.integers(1, 9)), inputs.shape[1]))
        arguments["preserve"] = Preserve(benign, ridge=10.0 ** -rng.integers(0, 7))
    if kind == "slack":
        arguments["slack"] = float(rng.choice([1e-3, 1.0]))
    if kind == "tiny_gaps":
        concepts[:, 0] = outputs[0, 0] + 2.0000001 * radius * np.arange(len(concepts))
    arguments |= {"inputs": inputs, "outputs": outputs, "concepts": concepts}
    return kind, arguments | {"radius": radius}


def _flat(rng, rows):
    wide = np.zeros((len(rows), 3))
    wide[:, :2] = rows[:, [0, -1]] + 1e-9 * rng.standard_normal((len(rows), 2))
    return wide


def _corners(d_out, simplex):
    if simplex:
        return np.concatenate([np.eye(d_out), -np.ones((1, d_out)) / d_out])
    axis = np.array([-1.0, 0.0, 1.0])
    return np.stack(np.meshgrid(*[axis] * d_out), axis=-1).reshape(-1, d_out)


def naive_feasible(arguments, starts=20, pushes=300, seed=0):
    """Displacements D (m, d_out) of a feasible point, or None where none was found."""
    rng = np.random.default_rng(seed)
    gram, outputs, concepts, radius = _reduced(arguments)
    directions, offsets = arguments.get("halfspaces", (np.zeros((0, 1)), np.zeros(0)))
    unit = np.max(radius, initial=0.0) or 1.0
    size = unit / np.sqrt(gram.diagonal().max())
    root = np.linalg.cholesky(gram + 1e-12 * gram.diagonal().max() * np.eye(len(gram)))
    for number in range(starts):
        moved = 3.0 * number / starts * size * root @ rng.standard_normal(outputs.shape)
        for _ in range(pushes):
            y = outputs + moved
            away = y[:, None] - concepts
            distance = np.linalg.norm(away, axis=2)
            balls = np.where(radius > 0.0, radius - distance, -np.inf)
            halves = np.zeros((len(y), 0))
            if len(directions):
                halves = y @ directions.T - offsets
            violation = np.concatenate([balls, halves], axis=1)
            j, i = np.unravel_index(violation.argmax(), violation.shape)
            if violation[j, i] <= 1e-10 * unit:
                return moved
            if i < len(concepts):
                push = away[j, i] / distance[j, i] if distance[j, i] > 0 else 1.0
            else:
                push = -directions[i - len(concepts)]
            moved = moved + np.outer(gram[j] / gram[j, j], violation[j, i] * push)
    return None


def _reduced(arguments):
    inputs, preserve = arguments["inputs"], arguments.get("preserve")
    dual = inputs if preserve is None else preserve.solve(inputs)
    gram = inputs @ dual.T
    gram = (gram + gram.T) / 2
    gram += arguments.get("slack", 0.0) * gram.diagonal().mean() * np.eye(len(gram))
    shape = len(inputs), len(arguments["concepts"])
    radius = np.broadcast_to(arguments["radius"], shape)
    return gram, arguments["outputs"], arguments["concepts"], radius
