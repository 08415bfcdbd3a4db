# SPDX-License-Identifier: Apache-2.0
"""Point-constrained regions in NumPy, on full vectors: the oracle of the tests."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CASES = json.loads((Path(__file__).parent / "pcr_cases.json").read_text())


@dataclass
class Problem:
    inputs: np.ndarray
    outputs: np.ndarray
    concepts: np.ndarray
    radius: float | np.ndarray
    benign: np.ndarray | None = None
    ridge: float = 0.01
    halfspaces: tuple[np.ndarray, np.ndarray] | None = None
    metric: np.ndarray = field(init=False)

    def __post_init__(self):
        d_in = self.inputs.shape[1]
        self.metric = np.eye(d_in)
        if self.benign is not None:
            moments = self.benign.T @ self.benign / len(self.benign)
            self.metric = self.ridge * np.eye(d_in) + moments

    @property
    def gram(self):
        return self.inputs @ np.linalg.solve(self.metric, self.inputs.T)

    @property
    def pairs(self):
        m, n = len(self.inputs), len(self.concepts)
        return np.broadcast_to(np.asarray(self.radius, float), (m, n))

    def moved(self, delta):
        return self.outputs + self.inputs @ delta.T

    def squared_norm(self, delta):
        return float(np.trace(delta @ self.metric @ delta.T))


def reference_case(case):
    """Rebuild the problem of a stored case, whose optimum an SDP solver has found."""
    d_out, m, n, d_in, quantile, correlation, kind = case["shape"]
    rng = np.random.default_rng(case["seed"])
    common = rng.standard_normal(d_in)
    own = np.sqrt(1 - correlation) * rng.standard_normal((m, d_in))
    inputs = own + np.sqrt(correlation) * common
    outputs = rng.standard_normal((m, d_out))
    concepts = 0.7 * rng.standard_normal((n, d_out))
    concepts += 0.8 * outputs[rng.integers(0, m, n)]
    if kind == "output_on_concept":
        concepts[0] = outputs[0]
    if kind == "duplicate_concepts":
        concepts[1] = concepts[0]
    benign = None
    if kind == "preserve":
        benign = rng.standard_normal((50, d_in)) * np.linspace(2, 0.1, d_in)
    distances = np.linalg.norm(outputs[:, None] - concepts, axis=2)
    radius = float(1.1 * np.quantile(distances, quantile))
    problem = Problem(inputs, outputs, concepts, radius, benign, case["ridge"])
    assert np.isclose(radius, case["radius"], rtol=1e-12)
    return problem


def random_problem(seed, m=4, n=6, d_out=20, d_in=12, correlation=0.8, quantile=0.6):
    rng = np.random.default_rng(seed)
    own = np.sqrt(1 - correlation) * rng.standard_normal((m, d_in))
    inputs = own + np.sqrt(correlation) * rng.standard_normal(d_in)
    outputs = rng.standard_normal((m, d_out))
    concepts = 0.7 * rng.standard_normal((n, d_out))
    if m > 0:
        concepts += 0.8 * outputs[rng.integers(0, m, n)]
    distances = np.linalg.norm(outputs[:, None] - concepts, axis=2)
    radius = float(1.1 * np.quantile(distances, quantile)) if distances.size else 1.0
    return Problem(inputs, outputs, concepts, radius)


def almost_on_a_concept(seed, m, n, distance):
    """A problem whose first output is a multiple of `distance` away from a concept."""
    problem = random_problem(seed, m, n, d_out=2 * m + n + 2, d_in=m + 4)
    away = np.random.default_rng(seed).standard_normal(problem.outputs.shape[1])
    problem.outputs[0] = problem.concepts[0] + distance * away
    return problem


def random_halfspaces(seed, problem, k, strength=0.5):
    """Directions that each forbid one prompt's output a little, others switched off."""
    rng = np.random.default_rng(seed)
    m, d_out = problem.outputs.shape
    directions = rng.standard_normal((k, d_out))
    offsets = np.full((m, k), np.inf)
    word = rng.integers(0, k, m)
    value = np.sum(directions[word] * problem.outputs, axis=1)
    offsets[np.arange(m), word] = value - strength * rng.random(m)
    return directions, offsets


def most_violated(problem, limit=10_000, tolerance=1e-10):
    """Repeat the closed form on the most violated pair, on the full matrix."""
    m, d_out = problem.outputs.shape
    delta = np.zeros((d_out, problem.inputs.shape[1]))
    dual = np.linalg.solve(problem.metric, problem.inputs.T).T
    radius = problem.pairs
    directions, offsets = problem.halfspaces or (np.zeros((0, d_out)), np.zeros((m, 0)))
    lengths = np.linalg.norm(directions, axis=1)
    steps, unit = 0, None
    while True:
        y = problem.moved(delta)
        distances = np.linalg.norm(y[:, None] - problem.concepts, axis=2)
        balls = np.where(radius > 0, radius - distances, -np.inf)
        halves = (y @ directions.T - offsets) / lengths
        violation = np.concatenate([balls, halves], axis=1)
        if unit is None:
            unit = max(
                np.max(radius, where=balls > 0, initial=0), np.max(halves, initial=0)
            )
        j, i = np.unravel_index(violation.argmax(), violation.shape)
        if violation[j, i] <= tolerance * unit or steps == limit:
            return delta, steps
        if i >= len(problem.concepts):
            push = -directions[i - len(problem.concepts)]
        elif distances[j, i] > 0:
            push = y[j] - problem.concepts[i]
        else:
            push = np.eye(d_out)[0]
        push = violation[j, i] * push / np.linalg.norm(push)
        delta += np.outer(push, dual[j]) / (problem.inputs[j] @ dual[j])
        steps += 1
